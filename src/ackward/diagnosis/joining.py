"""Two captures of the same traffic, one at each end: one clock, one flow, both views.

The clocks of two hosts differ: ``clocks.py`` works out by how much, from the segments that both captures show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ackward.diagnosis.clocks import Clock, Sightings, compare
from ackward.diagnosis.columns import Entries
from ackward.diagnosis.flows import Flows
from ackward.diagnosis.segmented import (
    Bools,
    Ints,
    group_ends,
    group_starts,
    next_index,
    previous_index,
)
from ackward.diagnosis.wire import WireFlows, view
from ackward.model.segments import Flag, Kind, Segments, Vantage


@dataclass(frozen=True)
class _View:
    """One capture: its flows, its rows as it shows them alone, and the time at which each of them was captured.

    Alone, what passed between the hosts is moved to where the client stands. Of two captures each stands at an end.
    """

    flows: Flows
    rows: Segments
    time: Ints

    @classmethod
    def of(cls, flows: WireFlows, wire: Segments) -> Self:
        seen, rows = view(flows, wire)
        order = np.argsort(wire["packet"], kind="stable")
        place = np.searchsorted(wire["packet"][order], rows["packet"])
        return cls(seen, rows, wire["time_ns"][order[place]])


@dataclass(frozen=True)
class Joined:
    """Flows and rows of both captures, all by the first one's clock; ``pairs`` flows are in both.

    ``clock`` is the second capture's by the first one's.
    """

    flows: Flows
    rows: Segments
    clock: Clock
    pairs: int


@dataclass(frozen=True)
class _Common(Entries):
    """Segments that both captures show: row numbers in each, in the order of the second; ``flow`` and direction."""

    first: Ints
    second: Ints
    flow: Ints
    to_server: Bools


def join_captures(flows: WireFlows, one: Segments, other: Segments) -> Joined | None:
    """Both captures as one; ``flows`` are those of both, the rows of each are as :func:`view` takes them.

    None if no flow shows the same segments in both, each way: then they are not two views of one traffic. None as well
    if no clock could have shown both.
    """
    first, second = _View.of(flows, one), _View.of(flows, other)
    common = _common(first.rows, second.rows)
    time = second.time[common.second]
    ahead = time - first.time[common.first]
    size = len(flows)
    both = (np.bincount(common.flow[common.to_server], minlength=size) > 0) & (
        np.bincount(common.flow[~common.to_server], minlength=size) > 0
    )
    of_pairs = both[common.flow]
    common, time, ahead = common.chosen(of_pairs), time[of_pairs], ahead[of_pairs]
    swapped = _swapped(common, time, ahead, size)
    seen = Sightings(
        second.rows["packet"][common.second],
        time,
        ahead,
        common.to_server != swapped[common.flow],
    )
    clock = compare(seen)
    if clock is None:
        return None
    took = np.where(seen.arrived, 1, -1) * (ahead - clock.at(seen.packet, seen.time))
    return _merged(first, second, clock, both, swapped, _round_trips(common, took, size))


def _common(ours: Segments, theirs: Segments) -> _Common:
    """The segments with data (or SYN) that both captures show exactly once."""
    chosen = [
        np.flatnonzero((rows["bytes"] > 0) | (rows["tcp_flags"] & Flag.SYN > 0)) for rows in (ours, theirs)
    ]
    keys = [
        np.concatenate([rows[name][at] for rows, at in zip((ours, theirs), chosen, strict=True)])
        for name in ("bytes", "seq", "to_server", "flow")
    ]
    row = np.concatenate(chosen)
    of_second = np.arange(len(row)) >= len(chosen[0])
    order = np.lexsort((of_second, *keys))
    another = np.ones(len(order) + 1, bool)
    another[1:-1] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    pair = np.flatnonzero(another[:-2] & ~another[1:-1] & another[2:]) if len(order) > 1 else order
    here, there = order[pair], order[pair + 1]
    once = ~of_second[here] & of_second[there]
    here, there = row[here[once]], row[there[once]]
    in_file = np.lexsort((theirs["time_ns"][there], theirs["packet"][there]))
    here, there = here[in_file], there[in_file]
    return _Common(here, there, theirs["flow"][there].astype(np.int64), theirs["to_server"][there])


def _swapped(common: _Common, time: Ints, ahead: Ints, size: int) -> Bools:
    """Per flow, whether the first capture is the one nearer to the server.

    Clocks aside, a segment to the server reaches the capture near the server later than the other one. A segment tells
    that by its neighbours of the other direction: half way between them an even drift is the same. Most decide.
    """
    order = np.argsort(common.flow, kind="stable")
    flow, to_server = common.flow[order], common.to_server[order]
    begins, ends = group_starts(flow), group_ends(flow)
    before = np.where(to_server, previous_index(begins, ~to_server), previous_index(begins, to_server))
    after = np.where(to_server, next_index(ends, ~to_server), next_index(ends, to_server))
    before, after = np.where(before < 0, after, before), np.where(after < 0, before, after)
    time, ahead = time[order].astype(np.float64), ahead[order].astype(np.float64)
    share = (time - time[before]) / np.maximum(time[after] - time[before], 1)
    trip = np.where(to_server, 1, -1) * (ahead - ahead[before] - share * (ahead[after] - ahead[before]))
    swapped: Bools = np.bincount(flow, weights=np.sign(trip), minlength=size) < 0
    return swapped


def _round_trips(common: _Common, took: Ints, size: int) -> Ints:
    """Per flow the smallest time there and the smallest back together."""
    most = np.iinfo(np.int64).max // 2
    total = np.zeros(size, np.int64)
    for to_server in (True, False):
        least = np.full(size, most)
        mine = common.to_server == to_server
        np.minimum.at(least, common.flow[mine], took[mine])
        total += least
    return np.maximum(total, 1)


def _merged(
    first: _View, second: _View, clock: Clock, both: Bools, swapped: Bools, round_trips: Ints
) -> Joined:
    rows_a, rows_b = first.rows, second.rows
    for seen in (first, second):
        seen.rows["time_ns"] = np.where(both[seen.rows["flow"]], seen.time, seen.rows["time_ns"])
    rows_b["time_ns"] -= clock.at(rows_b["packet"], rows_b["time_ns"])
    in_first = np.bincount(rows_a["flow"], minlength=len(both)) > 0
    flows = [
        ours if here else theirs
        for ours, theirs, here in zip(first.flows, second.flows, in_first.tolist(), strict=True)
    ]
    for number in np.flatnonzero(both).tolist():
        flows[number] = replace(flows[number], seen_from="both", min_rtt_ns=int(round_trips[number]))
    _seen_at(rows_a, both, np.where(swapped, Vantage.SERVER, Vantage.CLIENT))
    _seen_at(rows_b, both, np.where(swapped, Vantage.CLIENT, Vantage.SERVER))
    rows = np.concatenate((rows_a, rows_b))
    ordered: Segments = rows[np.lexsort((rows["time_ns"], rows["flow"]))]
    return Joined(Flows.of(flows), ordered, clock, int(np.count_nonzero(both)))


def _seen_at(rows: Segments, both: Bools, vantage: Ints) -> None:
    """Say from which end the rows of flows are seen that are in both, whatever the capture alone had made likely."""
    mine = np.flatnonzero(both[rows["flow"]])
    seen = vantage[rows["flow"][mine]]
    rows["vantage"][mine] = seen
    sent = rows["to_server"][mine] == (seen == Vantage.CLIENT)
    rows["kind"][mine] = np.where(sent, Kind.SENT, Kind.RECEIVED)
