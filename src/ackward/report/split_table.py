"""A prediction of split TCP as a table of plain text."""

from __future__ import annotations

from collections.abc import Iterator

from ackward.model import units
from ackward.model.split import MEANING, SplitPrediction, Timeline

_HEADER = ("", "client connected", "server connected", "first byte", "", "download", "", "")


def lines(prediction: SplitPrediction) -> Iterator[str]:
    """What was asked, then one row a variant."""
    yield _asked(prediction)
    yield ""
    rows = [_HEADER, *(_row(timeline) for timeline in prediction.variants)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    for row in rows:
        cells = [
            cell if number == last else cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def advice(prediction: SplitPrediction) -> Iterator[str]:
    """The verdict, then the notes, a sentence each."""
    found = prediction.advice
    yield f"{'Split' if found.split else 'Do not split'}: {found.why}."
    yield from (f"Note: {note}." for note in found.notes)


def _asked(prediction: SplitPrediction) -> str:
    given = prediction.input
    legs = " + ".join(
        units.duration(leg.rtt_ns) + (f" ({100 * leg.loss:.3g} % lost)" if leg.loss else "")
        for leg in given.legs
    )
    rate = f"{_rate(given.bandwidth_bits)}" if given.bandwidth_bits else "any bandwidth"
    return (
        f"{units.size(given.size_bytes)} over {legs}, directly {units.duration(given.direct.rtt_ns)}; {rate}, "
        f"initial window {given.initial_window}, receive window {units.size(given.receive_window_bytes)}"
    )


def _rate(bits: int) -> str:
    return f"{units.size(bits).removesuffix('B')}b/s"


def _row(timeline: Timeline) -> tuple[str, ...]:
    return (
        timeline.variant,
        _moment(timeline.client_connected_ns),
        _moment(timeline.server_connected_ns),
        units.duration(timeline.first_byte_ns),
        f"{timeline.first_byte_ratio:.2f}x",
        units.duration(timeline.download_ns),
        f"{timeline.download_ratio:.2f}x",
        MEANING[timeline.variant],
    )


def _moment(ns: int | None) -> str:
    return "-" if ns is None else units.duration(ns)
