"""Two captures of the same traffic, one at each end: one clock, one flow, both views.

The clocks of two hosts differ. A segment that both captures show left at one time of one clock and arrived at another
time of the other clock. The smallest such difference in each direction is the path plus, or minus, the clocks' offset;
half the difference of the two is the offset (RFC 5905 section 8), as far as the path is equally long both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ackward.diagnosis.flows import Flow
from ackward.diagnosis.segmented import Ints
from ackward.model.segments import Kind, Segments, Vantage

View = tuple[tuple[Flow, ...], Segments]


@dataclass(frozen=True)
class Joined:
    """Flows and rows of both captures; ``pairs`` flows are in both, the second clock was ``offset_ns`` ahead."""

    flows: tuple[Flow, ...]
    rows: Segments
    offset_ns: int
    pairs: int


@dataclass(frozen=True)
class _Pair:
    flow: int
    swapped: bool  # the client's end is in the second capture
    forth: int  # smallest server time minus client time of segments to the server
    back: int  # smallest client time minus server time of segments to the client


def join_captures(first: View, second: View) -> Joined | None:
    """Both captures as one; their flows have the same numbers.

    None if no flow shows the same segments in both: then they are not two views of one traffic.
    """
    pairs = _pairs(first, second)
    if not pairs:
        return None
    # The second clock is ahead by `offset`: what it saw is moved back.
    offsets = [
        ((pair.back - pair.forth) if pair.swapped else (pair.forth - pair.back)) // 2 for pair in pairs
    ]
    offset = int(np.median(offsets))
    return _merged(first, second, pairs, offset)


def _span(rows: Segments, flow: int) -> slice:
    begin, end = np.searchsorted(rows["flow"], (flow, flow + 1))
    return slice(int(begin), int(end))


def _pairs(first: View, second: View) -> list[_Pair]:
    both = np.intersect1d(first[1]["flow"], second[1]["flow"])
    found = []
    for flow in both.tolist():
        ours, theirs = first[1][_span(first[1], flow)], second[1][_span(second[1], flow)]
        forth, back = _differences(ours, theirs, to_server=True), _differences(ours, theirs, to_server=False)
        if not len(forth) or not len(back):
            continue
        # Clocks aside, the smallest way there less the largest way back is twice the path between the two captures:
        # positive if the first is nearer to the client.
        if int(forth.min()) - int(back.max()) >= int(back.min()) - int(forth.max()):
            found.append(_Pair(flow, swapped=False, forth=int(forth.min()), back=int((-back).min())))
        else:
            found.append(_Pair(flow, swapped=True, forth=int((-forth).min()), back=int(back.min())))
    return found


def _differences(ours: Segments, theirs: Segments, *, to_server: bool) -> Ints:
    """The second capture's time minus the first's, for each segment with data (or SYN) that both show exactly once."""
    keyed = []
    for rows in (ours, theirs):
        chosen = rows[(rows["to_server"] == to_server) & ((rows["bytes"] > 0) | (rows["tcp_flags"] & 2 > 0))]
        key = (chosen["seq"].astype(np.int64) << 21) | np.minimum(chosen["bytes"], (1 << 21) - 1)
        values, index, counts = np.unique(key, return_index=True, return_counts=True)
        keyed.append((values[counts == 1], chosen["time_ns"][index[counts == 1]]))
    _, here, there = np.intersect1d(keyed[0][0], keyed[1][0], assume_unique=True, return_indices=True)
    difference: Ints = keyed[1][1][there] - keyed[0][1][here]
    return difference


def _merged(first: View, second: View, pairs: Sequence[_Pair], offset: int) -> Joined:
    rows_a, rows_b = first[1].copy(), second[1].copy()
    rows_b["time_ns"] -= offset
    in_first = np.bincount(rows_a["flow"], minlength=len(first[0])) > 0
    flows = [
        ours if here else theirs
        for ours, theirs, here in zip(first[0], second[0], in_first.tolist(), strict=True)
    ]
    for pair in pairs:
        flows[pair.flow] = replace(
            flows[pair.flow], seen_from="both", min_rtt_ns=max(pair.forth + pair.back, 1)
        )
        _seen_at(rows_a, pair.flow, Vantage.SERVER if pair.swapped else Vantage.CLIENT)
        _seen_at(rows_b, pair.flow, Vantage.CLIENT if pair.swapped else Vantage.SERVER)
    rows = np.concatenate((rows_a, rows_b))
    ordered: Segments = rows[np.lexsort((rows["time_ns"], rows["flow"]))]
    return Joined(tuple(flows), ordered, offset, len(pairs))


def _seen_at(rows: Segments, flow: int, vantage: Vantage) -> None:
    """Say from which end the rows of a flow are seen, whatever the capture alone had made likely."""
    mine = rows[_span(rows, flow)]
    mine["vantage"] = vantage
    sent = mine["to_server"] == (vantage == Vantage.CLIENT)
    mine["kind"] = np.where(sent, Kind.SENT, Kind.RECEIVED)
