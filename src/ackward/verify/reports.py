"""Two reports to what changed between them: their distributions, and cause by cause."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ackward.model.causes import Cause
from ackward.model.comparison import CauseChange
from ackward.model.report import Report

#: The largest sample that is rebuilt (80 MB): a report may claim any number of exchanges.
MOST = 10_000_000


def sample(report: Report) -> NDArray[np.int64]:
    """The times of a report's exchanges, rebuilt from its quantiles; in nanoseconds, empty if it has none.

    Of up to 100 exchanges the sample is the exchanges' own times: each of them is a quantile. Of more it has as many
    entries as there were exchanges and the same 101 quantiles, each entry lowered to the quantile below it. So the
    verdict's medians are the true ones and its confidence interval is about as wide as the exchanges themselves would
    give it, but no finer than the quantiles around the median are apart. As with any sample, the interval speaks of
    exchanges that are independent of one another; counts of slow rounds are right to one percent.
    """
    count = min(report.exchanges, MOST)
    if not report.latency_ns or count < 1:
        return np.zeros(0, np.int64)
    # Entry i, from 1 to count, is quantile floor(100 i / count).
    return np.array(report.latency_ns, np.int64)[100 * np.arange(1, count + 1) // count]


def changes(before: Report, after: Report) -> list[CauseChange]:
    """What each cause took on either side, the largest change first, of equal ones the dearest cause."""
    found = []
    for cause in Cause:
        sides = [(_ns(report, cause), report) for report in (before, after)]
        if not any(ns for ns, _ in sides):
            continue
        (first, second) = (ns / max(report.elapsed_ns, 1) for ns, report in sides)
        (third, fourth) = (ns / max(report.exchanges, 1) for ns, report in sides)
        found.append(
            CauseChange(cause=cause, before_share=first, after_share=second, before_ns=third, after_ns=fourth)
        )
    return sorted(found, key=_by_size)


def _by_size(change: CauseChange) -> tuple[float, float]:
    return -abs(change.after_ns - change.before_ns), -max(change.before_ns, change.after_ns)


def _ns(report: Report, cause: Cause) -> int:
    return report.causes[cause].ns if cause in report.causes else 0
