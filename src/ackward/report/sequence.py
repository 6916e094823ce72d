"""The time-sequence plot's data as the page's script reads it: small, and numbers but for the notes."""

from __future__ import annotations

from typing import Any

from ackward.model import names, units
from ackward.model.causes import Cause
from ackward.model.sequence import SequencePlot

#: Columns that say the same of every row are not written.
_USUAL = {"merged": 1, "window": None}


def packed(plot: SequencePlot, cause: Cause) -> dict[str, Any]:
    """``plot`` for ``templates/sequence.js``, which unpacks it.

    Each number is written as its difference to what its direction made likely, which is mostly a digit or two: a time
    to the time before, ``seq`` to the end of the data before, ``ack`` and ``window`` to those before. A SACK is its
    row, its left edge from that row's ``ack`` and its length.
    """
    columns: dict[str, list[int | None]] = {name: [] for name in ("at", "seq", "ack", "window")}
    before = 0
    end, ack, window = [0, 0], [0, 0], [0, 0]
    for row, at in enumerate(plot.at_ns):
        way = int(plot.to_server[row])
        columns["at"].append(at - before)
        columns["seq"].append(plot.seq[row] - end[way])
        columns["ack"].append(_less(plot.ack[row], ack[way]))
        columns["window"].append(_less(plot.window[row], window[way]))
        before = at
        end[way] = plot.seq[row] + plot.bytes[row]
        ack[way] = _or(plot.ack[row], ack[way])
        window[way] = _or(plot.window[row], window[way])
    whole: dict[str, Any] = {
        "cause": cause.value,
        "from": plot.seen_from,
        "way": int(plot.stalled_to_server),
        "elapsed": plot.elapsed_ns,
        "exchange": plot.exchange_ns if has_neighbours(plot) else None,
        "stalls": plot.stalls_ns,
        "ways": [int(way) for way in plot.to_server],
        "bytes": plot.bytes,
        "flags": plot.flags,
        "merged": plot.merged,
        "first": plot.packet[0] if plot.packet else None,
        "packet": [after - one for one, after in zip(plot.packet, plot.packet[1:], strict=False)],
        "sacks": [
            (row, left - (plot.ack[row] or 0), right - left)
            for row, (left, right) in enumerate(zip(plot.sack_left, plot.sack_right, strict=True))
            if left is not None and right is not None
        ],
        "again": plot.again,
        "late": plot.late,
        "marks": [
            [mark.at_ns, int(mark.to_server), mark.seq, mark.end.value, mark.kind, names.prose(mark.note)]
            for mark in plot.marks
        ],
    } | columns
    return {name: value for name, value in whole.items() if name not in _USUAL or set(value) - {_USUAL[name]}}


def seen(plot: SequencePlot) -> str:
    """How many segments are drawn, of how many, and who saw them."""
    drawn, there = len(plot.at_ns), plot.segments_seen
    between = "between the two hosts, at times estimated for the client"
    where = between if plot.seen_from == "between" else f"at the {plot.seen_from}"
    several = units.plural(there, "segment")
    return f"{several if drawn == there else f'{units.count(drawn)} of {several}'}, as seen {where}"


def has_neighbours(plot: SequencePlot) -> bool:
    """Whether there is more than the exchange of the ladder, by enough to be seen."""
    start, end = plot.exchange_ns
    return end - start < 0.98 * plot.elapsed_ns


def _less(value: int | None, base: int) -> int | None:
    return None if value is None else value - base


def _or(value: int | None, other: int) -> int:
    return other if value is None else value
