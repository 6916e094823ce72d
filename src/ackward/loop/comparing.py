"""Before and after, from files: two reports, two captures, or one of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ackward.capture.framing import EARLY, OPENING_OF_JSON
from ackward.errors import UsageError
from ackward.loop.analyzing import analyze
from ackward.model.comparison import Comparison, Side
from ackward.model.lab import LabReport
from ackward.model.names import visible
from ackward.model.report import Report
from ackward.verify.compare import compare as judge
from ackward.verify.reports import changes, sample

AGAIN = "make it again with `--json` of `ackward watch` or `ackward analyze`"


@dataclass(frozen=True)
class _Seen:
    """One side: its report, and the times of its exchanges in nanoseconds."""

    side: Side
    report: Report
    elapsed: NDArray[Any]


def compare(
    before: str | Path, after: str | Path, *, port: int | None = None, host: str | None = None
) -> Comparison:
    """The verdict on two files, each a report (the JSON of ``watch``, ``analyze`` or ``lab run``) or a capture.

    Captures are explained first (``port`` and ``host`` as in :func:`analyze`) and compared exchange by exchange; of
    reports the quantiles are compared (:func:`ackward.verify.reports.sample` says what the interval means then), and of
    a lab run its first phase. Raises :class:`UsageError` for a side without exchanges.
    """
    first, second = (_seen(Path(path), port, host) for path in (before, after))
    return Comparison(
        before=first.side,
        after=second.side,
        verdict=judge(first.elapsed, second.elapsed),
        causes=changes(first.report, second.report),
    )


def _seen(path: Path, port: int | None, host: str | None) -> _Seen:
    if _is_report(path):
        if port is not None or host is not None:
            raise UsageError(
                f"{path} is a report, of which no connections can be chosen any more",
                consequence="nothing was compared",
                next_step="leave out --port and --host, or compare captures",
            )
        report, basis = _load(path), "quantiles"
        elapsed = sample(report)
    else:
        diagnosis = analyze([path], port=port, host=host)
        report, elapsed, basis = diagnosis.brief, diagnosis.elapsed, "exchanges"
    if not report.exchanges:
        raise UsageError(
            f"{path} holds no exchange",
            consequence="there is nothing to compare",
            next_step="look at what it holds with `ackward analyze`" if basis == "exchanges" else AGAIN,
        )
    if not len(elapsed):
        raise UsageError(
            f"{path} does not say how its exchanges' times were distributed (latency_ns)",
            consequence="there is nothing to compare",
            next_step=AGAIN,
        )
    side = Side.model_validate(
        {
            "source": visible(str(path)),
            "basis": basis,
            "exchanges": report.exchanges,
            "elapsed_ns": report.elapsed_ns,
        }
    )
    return _Seen(side, report, np.asarray(elapsed))


def _is_report(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(EARLY).lstrip().startswith(OPENING_OF_JSON)
    except OSError:
        return False  # a directory, a pattern, or nothing at all: analyze says what it makes of it


def _load(path: Path) -> Report:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be read as JSON ({error})", consequence="nothing was compared", next_step=AGAIN
        ) from error
    if "error" in document:
        raise UsageError(
            f"{path} holds an error and no report: {document.get('missing')}",
            consequence="nothing was compared",
            next_step=AGAIN,
        )
    try:
        return (LabReport if "scenario" in document else Report).model_validate(document)
    except ValidationError as error:
        said = document.get("schema")
        if isinstance(said, str) and not said.startswith("ackward/report/"):
            raise UsageError(
                f"{path} is no report but another document ({visible(said)})",
                consequence="nothing was compared",
                next_step=AGAIN,
            ) from error
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise UsageError(
            f"{path} is no report of this version ({place + ': ' if place else ''}{fault['msg']})",
            consequence="nothing was compared",
            next_step=AGAIN,
        ) from error
