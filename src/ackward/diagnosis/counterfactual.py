"""What exchanges would have taken without a wait: their own events, replayed with one rule of TCP taken away.

An exchange is a chain. An ACK lets a held segment go, its arrival lets the answer go, the answer the next request.
Its partition names the links; the rows say what else each wait was waiting for.

Laws
 - What came before a wait stays. What came after it follows at the distance that it had: transits, round trips of the
   path and the programs' own pauses keep their lengths. So the waits of one exchange are shortened one by one.
 - ``quickack``: the ACK leaves when the data arrives, so the held segment leaves one smallest round trip after the data
   before it. ``nodelay``: it leaves when it was written.
 - Nothing leaves before it was written. Nagle's algorithm gathers writes, so a held segment is no older than the last
   write of the wait: what a program took between two writes is its own time, however long the kernel held the first.
 - Nothing overtakes: what the peer sent during the wait did not depend on it, and what it sends next stays behind that.
 - A wait that ends in another wait, and not with the segment that it held, gains nothing: the other would merely have
   begun that much sooner.
 - ``initcwnd``: flights grow as they did, from a larger beginning; the waits go that would lie beyond the last byte.
   After a pause it is the window that the flow had before: twice its largest flight, as slow start leaves it.
 - No wait becomes longer, and none shorter than nothing: each saving lies between 0 and the wait.

What the rows do not tell cannot be replayed: a capture shows no writes, so there a held message was written at
once. And a write that comes between a prompt ACK and the next one may be held for one round trip more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ackward.diagnosis.attribution import Attribution
from ackward.diagnosis.columns import Entries
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.flights import AFTER_PAUSE
from ackward.diagnosis.partition import CAUSES, Parts
from ackward.diagnosis.segmented import NEVER, Bools, Ints, group_ends, group_starts, in_order, running_max
from ackward.diagnosis.traffic import each
from ackward.model.causes import Cause
from ackward.model.scopes import USUAL_SEGMENTS
from ackward.model.segments import Kind, Vantage

_ACKED = [CAUSES.index(cause) for cause in (Cause.STANDOFF, Cause.DELAYED_ACK)]
_NAGLE = [CAUSES.index(cause) for cause in (Cause.STANDOFF, Cause.NAGLE)]
_IDLE, _GROWING = CAUSES.index(Cause.IDLE_RESTART), CAUSES.index(Cause.SLOW_START)
_PEER = {Vantage.CLIENT: Vantage.SERVER, Vantage.SERVER: Vantage.CLIENT}


@dataclass(frozen=True)
class Savings(Entries):
    """One entry a wait (a stalled part): by how many nanoseconds each remedy, by its name, would shorten it."""

    quickack: Ints
    nodelay: Ints
    initcwnd: Ints


def savings(seen: Attribution, waits: Ints) -> Savings:
    """What would become of these ``waits``, indices into the partition, in order.

    Cuts the flows that they are in once more; the others cost nothing.
    """
    flows = seen.flow_of[waits]

    def replayed(first: int, beyond: int) -> Savings:
        low, high = np.searchsorted(flows, (first, beyond)).tolist()
        if low == high:
            return _nothing(0)
        stretch = seen.stretch(int(flows[low]), int(flows[high - 1]) + 1)
        before = int(np.searchsorted(seen.parts.exchange, stretch.exchange))
        asked = np.zeros(len(stretch.parts.start), bool)
        asked[waits[low:high] - before] = True
        return replay(stretch.timeline, stretch.parts, asked)

    return Savings.joined(each(replayed, seen.traffic.stretches()))


def replay(timeline: Timeline, parts: Parts, asked: Bools) -> Savings:
    """The same for the parts of a timeline that are ``asked`` for."""
    waits = parts.chosen(asked)
    prompt, written = _released(timeline, waits)
    quickack, nodelay = np.isin(waits.cause, _ACKED), np.isin(waits.cause, _NAGLE)
    initcwnd = _larger_window(timeline, parts)[asked]
    return Savings(np.where(quickack, prompt, 0), np.where(nodelay, written, 0), initcwnd)


def _nothing(size: int) -> Savings:
    return Savings(*(np.zeros(size, np.int64) for _ in range(3)))


@dataclass(frozen=True)
class _Lane:
    """Rows of new data (or of held writes) of one direction as one end saw them, in order of flow and time."""

    timeline: Timeline
    rows: Ints

    @classmethod
    def of(cls, timeline: Timeline, sender: Vantage, seen_at: Vantage, where: Bools | None = None) -> _Lane:
        there = timeline.fresh if where is None else where
        to_server = timeline.segments["to_server"]
        mine = to_server if sender == Vantage.CLIENT else ~to_server
        return cls(timeline, np.flatnonzero(there & mine & timeline.at(seen_at)))

    def place(self, flow: Ints, time: Ints, side: Literal["left", "right"]) -> Ints:
        """Where these moments of these flows lie among the rows, as np.searchsorted has it."""
        flows = np.concatenate((self.timeline.segments["flow"][self.rows].astype(np.int64), flow))
        keys = in_order(flows, np.concatenate((self.timeline.time[self.rows], time)))
        size = len(self.rows)
        return np.searchsorted(keys[:size], keys[size:], side=side)

    def at(self, place: Ints, flow: Ints) -> tuple[Ints, Bools]:
        """The rows at these places, and whether there is one of that flow."""
        if not len(self.rows):
            return np.zeros(len(place), np.int64), np.zeros(len(place), bool)
        row = self.rows[np.clip(place, 0, len(self.rows) - 1)]
        there = (place >= 0) & (place < len(self.rows))
        return row, there & (self.timeline.segments["flow"][row] == flow)


def _released(timeline: Timeline, waits: Parts) -> tuple[Ints, Ints]:
    """What a prompt ACK, and no hold at all, would take from each wait that ended as a held segment left."""
    prompt, written = np.zeros((2, len(waits.start)), np.int64)
    for sender, peer in _PEER.items():
        mine = waits.holding == sender
        if not mine.any():
            continue
        for seen_at in (peer, sender):  # where both were watched, the sender's view counts
            there, *found = _released_at(timeline, waits.chosen(mine), sender, seen_at)
            for saved, ns in zip((prompt, written), found, strict=True):
                saved[mine] = np.where(there, ns, saved[mine])
    return prompt, written


def _released_at(
    timeline: Timeline, waits: Parts, sender: Vantage, seen_at: Vantage
) -> tuple[Bools, Ints, Ints]:
    """Which of the waits of one sender were seen to end so, and what each of the two would take from them."""
    time, flow, lane = timeline.time, timeline.flow_of[waits.exchange], _Lane.of(timeline, sender, seen_at)
    place = lane.place(flow, waits.end, "left")
    release, there = lane.at(place, flow)
    there &= time[release] == waits.end
    before, known = lane.at(place - 1, flow)
    acked = np.where(known, time[before], waits.start) + timeline.min_rtt[waits.exchange]

    held = _Lane.of(timeline, sender, sender, timeline.segments["kind"] == Kind.WRITE_HELD)
    write, known = held.at(held.place(flow, waits.end, "right") - 1, flow)
    gathers = known & np.isin(waits.cause, _NAGLE)
    ready = np.maximum(waits.start, np.where(gathers, time[write], NEVER))

    # What the peer sent meanwhile stays, and what it sends next stays behind that.
    back = _Lane.of(timeline, _PEER[sender], seen_at)
    place = back.place(flow, waits.end, "left")
    last, said = back.at(place - 1, flow)
    said &= time[last] >= waits.start
    following, answers = back.at(place, flow)
    answers &= timeline.exchange[following] == waits.exchange
    until = np.where(answers, time[following], timeline.end[waits.exchange])
    most = np.where(said, until - time[last], waits.ns)

    prompt, written = (
        np.clip(np.minimum(waits.end - earliest, most), 0, waits.ns)
        for earliest in (np.maximum(ready, acked), ready)
    )
    return there, prompt, written


def _larger_window(timeline: Timeline, parts: Parts) -> Ints:
    """What a larger initial window, or after a pause the window from before it, would take from each part."""
    saved = np.zeros(len(parts.start), np.int64)
    for sender in _PEER:
        mine = np.isin(parts.cause, (_IDLE, _GROWING)) & (parts.holding == sender)
        if mine.any():
            saved[mine] = _larger_window_of(timeline, parts.chosen(mine), sender)
    return saved


def _larger_window_of(timeline: Timeline, waits: Parts, sender: Vantage) -> Ints:
    first, last = group_starts(waits.exchange), group_ends(waits.exchange)
    sent, whole, told, mss = _sizes(timeline, waits, sender)
    # Bytes from a wait to the next one, or to the end.
    flight = sent - np.where(np.arange(len(sent)) > first, np.roll(sent, 1), 0)
    flight = np.maximum(flight, np.where(np.arange(len(sent)) == last, whole - sent, 0))
    flow = timeline.flow_of[waits.exchange]
    earlier = running_max(flow, flight, at=np.maximum(first - 1, 0))
    earlier = np.where((first > 0) & (flow[np.maximum(first - 1, 0)] == flow), earlier, 0)
    had = np.where(told > 0, told * mss, earlier)

    rested = _sums(waits.cause == _IDLE, first, last) > 0
    window = USUAL_SEGMENTS * mss
    window = np.where(rested, AFTER_PAUSE * np.maximum(had, window), window)
    beyond = (sent > 0) & (sent.astype(np.float64) * window >= whole.astype(np.float64) * sent[first])
    # The first flights become one: what goes is gone from the beginning.
    before = np.cumsum(waits.ns) - waits.ns
    gone: Ints = np.clip(
        _sums(np.where(beyond, waits.ns, 0), first, last) - (before - before[first]), 0, waits.ns
    )
    return gone


def _sums(values: Ints | Bools, first: Ints, last: Ints) -> Ints:
    """For each entry the sum over its group, which reaches from ``first`` to ``last``."""
    so_far = np.concatenate((np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)))
    sums: Ints = so_far[last + 1] - so_far[first]
    return sums


def _sizes(timeline: Timeline, waits: Parts, sender: Vantage) -> tuple[Ints, Ints, Ints, Ints]:
    """For each wait what its sender had sent by then in the exchange and what it sent in all, a window, and the MSS.

    The window is the largest congestion window before the exchange, in segments, or 0 if no kernel told it; the rest
    is in bytes. All are 0 where the data was not seen.
    """
    sizes = np.zeros((4, len(waits.start)), np.int64)
    exchange, segments = waits.exchange, timeline.segments
    flow = timeline.flow_of[exchange]
    for seen_at in (_PEER[sender], sender):  # where both were watched, the sender's view counts
        lane = _Lane.of(timeline, sender, seen_at)
        if not len(lane.rows):
            continue
        begins = lane.place(flow, timeline.start[exchange], "left")
        opening, _ = lane.at(begins, flow)
        ending, _ = lane.at(lane.place(flow, timeline.end[exchange], "right") - 1, flow)
        row, there = lane.at(lane.place(flow, waits.start, "right") - 1, flow)
        there &= (timeline.exchange[opening] == exchange) & (timeline.exchange[row] == exchange)
        base = timeline.seq64[opening]
        cwnd = np.where(segments["has_state"][lane.rows], segments["cwnd"][lane.rows], 0).astype(np.int64)
        _, known = lane.at(begins - 1, flow)
        told = running_max(segments["flow"][lane.rows], cwnd, at=np.maximum(begins - 1, 0))
        seen = (
            timeline.end64[row] - base,
            timeline.end64[ending] - base,
            np.where(known & (seen_at == sender), told, 0),
            segments["mss"][row].astype(np.int64),
        )
        sizes = np.where(there, np.stack(seen), sizes)
    return sizes[0], sizes[1], sizes[2], sizes[3]
