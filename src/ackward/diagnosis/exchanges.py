"""Flows to exchanges: one request and its answer, cut so that no two of a flow overlap.

Laws
 - A flow's first exchange starts with its SYN, later ones with the first request byte.
 - An exchange ends with the last answer byte at the client.
 - A cut is made only where request data follows answer data and nothing is outstanding, so pipelined and multiplexed
   traffic stays in one exchange and no time is counted twice.
 - The client's own view decides where there is one. From the server, start and end are estimated as half the
   smallest round trip earlier and later, and flagged.

The recorder in the kernel cuts by the same rule (``advance`` in ``segments.bpf.c``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ackward.diagnosis.columns import Columns
from ackward.diagnosis.flows import Flows
from ackward.diagnosis.segmented import (
    NEVER,
    Bools,
    Ints,
    group_ends,
    group_starts,
    in_order,
    next_index,
    previous_index,
    running_max,
    starts,
    unwrap,
)
from ackward.model.segments import Flag, Kind, Segments, Vantage


@dataclass(frozen=True)
class Exchanges:
    """One entry an exchange, in order of flow and time; times in nanoseconds.

    ``primary`` is the vantage point that start and end are seen from; ``estimated`` tells that it is not the client's.
    """

    flow_of: Ints
    start: Ints
    end: Ints
    primary: Ints
    estimated: Bools
    min_rtt: Ints
    has_client: Bools
    has_server: Bools

    @property
    def count(self) -> int:
        """How many exchanges there are."""
        return len(self.start)

    @property
    def elapsed(self) -> Ints:
        """The length of each exchange."""
        return self.end - self.start


@dataclass(frozen=True)
class Timeline(Exchanges):
    """Exchanges with the segments that they fall into, in order of flow and time, and what the causes ask of these.

    One entry a row of ``segments``. ``seq64``, ``end64`` and ``ack64`` are unwrapped within the flow and direction, so
    that ``ack64 >= end64`` means acknowledged. ``exchange`` is -1 outside of all.
    """

    flows: Flows
    segments: Columns
    seq64: Ints
    end64: Ints
    ack64: Ints
    fresh: Bools
    exchange: Ints

    @property
    def time(self) -> Ints:
        """Per row."""
        times: Ints = self.segments["time_ns"]
        return times

    @cached_property
    def _begins(self) -> Ints:
        return group_starts(self.segments["flow"])

    @cached_property
    def _ends(self) -> Ints:
        return group_ends(self.segments["flow"])

    @cached_property
    def not_full(self) -> Bools:
        """Rows whose segments were smaller than the MSS."""
        segments = self.segments
        # Compared without dividing: integer division is the slowest thing that a processor does to a column.
        full = np.maximum(segments["segments"], 1).astype(np.int64) * np.maximum(segments["mss"], 1)
        small: Bools = segments["bytes"] < full
        return small

    def previous(self, where: Bools, at: Ints) -> Ints:
        """For each of the rows ``at`` the nearest earlier row of its flow where ``where`` holds, else -1."""
        return previous_index(self._begins, where, at)

    def following(self, where: Bools, at: Ints) -> Ints:
        """For each of the rows ``at`` the nearest later row of its flow where ``where`` holds, else -1."""
        return next_index(self._ends, where, at)

    @cached_property
    def vantages(self) -> tuple[Vantage, ...]:
        """The ends that have rows here; where there is no row at all, one nevertheless."""
        there = [end for end in (Vantage.CLIENT, Vantage.SERVER) if (self.segments["vantage"] == end).any()]
        return tuple(there) or (Vantage.CLIENT,)

    @cached_property
    def _acked(self) -> dict[Vantage, Ints]:
        return {}

    def acked(self, vantage: Vantage) -> Ints:
        """For each row the highest number that this end had been acknowledged before it, else NEVER."""
        if vantage not in self._acked:
            received = self.at(vantage) & (self.segments["kind"] == Kind.RECEIVED)
            flow = self.segments["flow"]
            self._acked[vantage] = running_max(flow, self.ack64, where=received, inclusive=False)
        return self._acked[vantage]

    def at(self, vantage: Vantage) -> Bools:
        """Rows seen from ``vantage``."""
        rows: Bools = self.segments["vantage"] == vantage
        return rows


def _sequence_space(segments: Columns) -> tuple[Ints, Ints]:
    """``seq`` and ``ack`` of each row, unwrapped in the sequence space that each belongs to."""
    # ESTABLISHED and the like carry the socket's own numbers, so they belong to the same two spaces.
    valid_ack = (segments["tcp_flags"] & Flag.ACK > 0) | (segments["kind"] != Kind.SENT) & (
        segments["kind"] != Kind.RECEIVED
    )
    # Each row has one number in the space of either direction: its own, or what it acknowledges.
    spaces = []
    for own in (segments["to_server"], ~segments["to_server"]):
        rows = np.flatnonzero(own | valid_ack)
        numbers = np.where(own, segments["seq"], segments["ack"])[rows]
        space = np.full(len(segments), NEVER)
        space[rows] = unwrap(segments["flow"][rows], numbers)
        spaces.append(space)
    forth, back = spaces
    return np.where(segments["to_server"], forth, back), np.where(segments["to_server"], back, forth)


def _quiet(
    segments: Columns, order: Ints, seq64: Ints, end64: Ints, ack64: Ints, view: Ints, at: Ints
) -> Bools:
    """Nothing outstanding when these request segments were seen: by the kernel's word, else by what passed before."""
    data = segments["bytes"][order] > 0
    back = ~segments["to_server"][order]
    acked = running_max(view, ack64, where=back, inclusive=False, at=at)
    answered = running_max(view, end64, where=back & data, inclusive=False, at=at)
    quiet: Bools = (acked >= seq64[at]) & (ack64[at] >= answered)
    told = np.flatnonzero(segments["has_state"][order[at]])
    row = order[at[told]]
    told_client = segments["snd_una"][row] == segments["seq"][row]
    told_server = segments["ack"][row] == segments["snd_nxt"][row]
    quiet[told] = np.where(segments["kind"][row] == Kind.SENT, told_client, told_server)
    return quiet


def cut(flows: Flows, rows: Segments | Columns) -> Timeline:
    """Cut the segments of all flows, in order of flow and time, into exchanges."""
    segments = rows if isinstance(rows, Columns) else Columns(rows)
    flow = segments["flow"].astype(np.int64)
    time = segments["time_ns"]
    seq64, ack64 = _sequence_space(segments)
    is_segment = np.isin(segments["kind"], (Kind.SENT, Kind.RECEIVED, Kind.PASSED))
    end64 = seq64 + np.where(is_segment, segments["bytes"], 0)
    data = is_segment & (segments["bytes"] > 0)

    # Freshness is a matter of one vantage point and direction: the other end's view of a segment is no repeat of it.
    fresh = np.zeros(len(segments), bool)
    lane = segments["vantage"] * 2 + segments["to_server"]
    for one in np.flatnonzero(np.bincount(lane)).tolist():
        rows = np.flatnonzero(data & (lane == one))
        fresh[rows] = end64[rows] > running_max(flow[rows], end64[rows], inclusive=False)

    primary = segments["vantage"] == flows.primary[flow]
    order = np.flatnonzero(primary)
    view = flow[order]
    to_server = segments["to_server"][order]
    request = fresh[order] & to_server
    answer = fresh[order] & ~to_server
    syn = is_segment[order] & (segments["tcp_flags"][order] & Flag.SYN > 0) | (
        segments["kind"][order] == Kind.ESTABLISHED
    )
    opening = starts(view) & (syn | request)
    begins, beginnings = opening.copy(), group_starts(view)
    asked = np.flatnonzero(request)
    before = previous_index(beginnings, request | answer, asked)
    after_answer = asked[(before >= 0) & answer[before]]
    seen = seq64[order], end64[order], ack64[order]
    begins[after_answer] |= _quiet(segments, order, *seen, view, after_answer)
    # Captures and watches begin in mid-connection: the first request byte opens the first whole exchange.
    asked = asked[previous_index(beginnings, request, asked) < 0]
    begins[asked] |= previous_index(beginnings, opening, asked) < 0

    first = order[begins]
    number = np.cumsum(begins) - 1
    if len(first):
        number[flow[first][number] != view] = -1  # before the first exchange of a flow
    start = time[first].astype(np.int64)
    # Repairs of a loss bring bytes that nobody had acknowledged yet: they end an exchange too.
    again = np.flatnonzero(data[order] & ~to_server & ~answer)
    answer[again] = end64[order][again] > running_max(
        view, ack64[order], where=to_server, inclusive=False, at=again
    )
    last = _last_moment(number, begins.sum(), time[order], answer, request)
    worth = last > start
    return _assemble(
        flows,
        segments,
        seq64,
        end64,
        ack64,
        fresh,
        flow[first][worth],
        start[worth],
        last[worth],
    )


def _last_moment(number: Ints, count: int, time: Ints, answer: Bools, request: Bools) -> Ints:
    """The end of each exchange: its last answer byte; without one, its last request byte, else its last event."""
    last = np.full(count, NEVER)
    for rows in (answer, request, np.ones(len(number), bool)):
        candidate = np.full(count, NEVER)
        chosen = rows & (number >= 0)
        np.maximum.at(candidate, number[chosen], time[chosen])
        last = np.where(last == NEVER, candidate, last)
    return last


def _assemble(
    flows: Flows,
    segments: Columns,
    seq64: Ints,
    end64: Ints,
    ack64: Ints,
    fresh: Bools,
    flow_of: Ints,
    start: Ints,
    end: Ints,
) -> Timeline:
    min_rtt, primary = flows.min_rtt[flow_of], flows.primary[flow_of]
    estimated = primary != Vantage.CLIENT
    exchange = _exchange_of(segments, flow_of, start, end)
    # From the server: the client sent half a round trip earlier and received half a round trip later.
    half = np.where(estimated, min_rtt // 2, 0)
    opening = starts(flow_of)
    with_syn = estimated & opening & _opened_by_handshake(segments, flow_of, start)
    start = start - half - np.where(with_syn, min_rtt, 0)
    end = end + half
    if len(start):
        floor = np.where(opening[1:], NEVER, end[:-1])
        start[1:] = np.minimum(np.maximum(start[1:], floor), end[1:])
    seen = {v: np.zeros(len(start), bool) for v in (Vantage.CLIENT, Vantage.SERVER)}
    for vantage, flags in seen.items():
        rows = exchange[(segments["vantage"] == vantage) & (exchange >= 0)]
        flags[rows] = True
    return Timeline(
        flow_of, start, end, primary, estimated, min_rtt, seen[Vantage.CLIENT], seen[Vantage.SERVER],
        flows, segments, seq64, end64, ack64, fresh, exchange,
    )  # fmt: skip


def _opened_by_handshake(segments: Columns, flow_of: Ints, start: Ints) -> Bools:
    """Whether an exchange began with the server's ESTABLISHED, one round trip after the client's SYN arrived."""
    established = segments["kind"] == Kind.ESTABLISHED
    rows = np.flatnonzero(established)
    of = np.concatenate((flow_of, segments["flow"][rows].astype(np.int64)))
    keys = in_order(of, np.concatenate((start, segments["time_ns"][rows])))
    opened: Bools = np.isin(keys[: len(start)], keys[len(start) :])
    return opened


def _exchange_of(segments: Columns, flow_of: Ints, start: Ints, end: Ints) -> Ints:
    """The exchange that each row falls into by flow and time, else -1: the other end's rows too."""
    if not len(start):
        return np.full(len(segments), -1, np.int64)
    time, flow = segments["time_ns"], segments["flow"].astype(np.int64)
    order = in_order(np.concatenate((flow_of, flow)), np.concatenate((start, time)))
    # Both are in order of flow and time: the last one that began by then is the row's, if it has not ended.
    begins = np.searchsorted(order[len(start) :], order[: len(start)])
    mine = np.cumsum(np.bincount(begins, minlength=len(segments))) - 1
    safe = np.maximum(mine, 0)
    inside = (mine >= 0) & (flow_of[safe] == flow) & (time <= end[safe])
    return np.where(inside, mine, -1)
