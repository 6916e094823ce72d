"""One exchange as a ladder: the evidence of a finding, step by step.

Laws
 - An arrival belongs to the latest earlier sending of the same bytes that no later arrival belongs to: so what was lost
   and sent again arrives once, and what was only reordered arrives as often as it left.
 - Offload cuts and merges segments between the two captures, so bytes are paired, not segments. Of a sending, what
   arrived and what was lost are two steps.
 - A sending is lost only if the other end was watched when it should have arrived. Else its arrival is estimated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np

from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.partition import CAUSES, Parts
from ackward.diagnosis.segmented import Bools, Ints
from ackward.model.causes import STALLS, Cause, End
from ackward.model.report import Ladder, LadderStep, Stall
from ackward.model.segments import Flag, Kind, Nonagle, Vantage

#: Enough for every request-and-answer exchange; a long transfer shows its two ends and those of its longest stalls.
MOST_STEPS = 48
LONGEST_STALLS = 5

_ENDS = {Vantage.CLIENT: End.CLIENT, Vantage.SERVER: End.SERVER}
_SEGMENTS = (Kind.SENT, Kind.RECEIVED)
_TURNS = Flag.SYN | Flag.FIN | Flag.RST


def draw(timeline: Timeline, parts: Parts, exchange: int, cause: Cause) -> Ladder:
    """The ladder of one exchange, with the parts that went to ``cause`` marked.

    Times count from the exchange's start.
    """
    drawing = _Drawing(timeline, exchange)
    stalls = _stalls(parts, exchange, cause, drawing.start) if cause in STALLS else []
    elapsed = int(timeline.end[exchange]) - drawing.start
    return Ladder(elapsed_ns=elapsed, steps=drawing.steps(stalls, elapsed), stalls=stalls)


@dataclass(frozen=True)
class _Stretch:
    """Bytes of one sending that shared their fate, counted from its first; ``arrives`` is None if that was not seen."""

    first: int
    last: int
    arrives: int | None
    lost: bool = False


@dataclass(frozen=True)
class _Drawing:
    """The steps of one exchange under construction; rows are those of the timeline."""

    timeline: Timeline
    exchange: int

    @property
    def start(self) -> int:
        return int(self.timeline.start[self.exchange])

    @property
    def half(self) -> int:
        """What a segment is taken to need for its way where only one end saw it."""
        return int(self.timeline.min_rtt[self.exchange]) // 2

    @cached_property
    def rows(self) -> Ints:
        return np.flatnonzero(self.timeline.exchange == self.exchange)

    @cached_property
    def base(self) -> dict[bool, int]:
        """What sequence numbers count from, by ``to_server``."""
        ways = self.timeline.segments["to_server"][self.rows]
        seq = self.timeline.seq64[self.rows]
        return {
            way: int(seq[ways == way].min(initial=2**62)) if (ways == way).any() else 0
            for way in (True, False)
        }

    @cached_property
    def flow(self) -> Ints:
        """All rows of the flow: what leaves in the exchange may arrive after its end."""
        number = self.timeline.flow_of[self.exchange]
        first, last = np.searchsorted(self.timeline.segments["flow"], (number, number + 1))
        return np.arange(first, last)

    @cached_property
    def lanes(self) -> dict[tuple[Kind, bool], tuple[Ints, Ints, Ints]]:
        """The flow's rows by kind and ``to_server``, with where their bytes begin and end."""
        line = self.timeline
        kind, ways = line.segments["kind"][self.flow], line.segments["to_server"][self.flow]
        found = {}
        for one, way in product(_SEGMENTS, (True, False)):
            rows = self.flow[(kind == one) & (ways == way)]
            found[one, way] = (rows, line.seq64[rows], line.end64[rows])
        return found

    @cached_property
    def watched(self) -> dict[Vantage, tuple[int, int]]:
        """From when to when each end saw the flow, the ends alone that saw this exchange: from the SYN on is always."""
        segments, found = self.timeline.segments, {}
        for end in map(Vantage, np.unique(segments["vantage"][self.rows]).tolist()):
            mine = self.flow[segments["vantage"][self.flow] == end]
            opening = segments["kind"][mine[0]] in _SEGMENTS and segments["tcp_flags"][mine[0]] & Flag.SYN
            times = segments["time_ns"][mine]
            found[end] = (-(2**62) if opening else int(times[0]), int(times[-1]))
        return found

    def steps(self, stalls: list[Stall], elapsed: int) -> list[LadderStep]:
        """In order of time."""
        segments = self.timeline.segments
        kind = segments["kind"][self.rows]
        rows = self.rows[
            np.isin(kind, (*_SEGMENTS, Kind.WRITE_HELD, Kind.ACK_TIMER)) & ~self._paired(self.rows)
        ]
        kind = segments["kind"][rows]
        at = segments["time_ns"][rows] - self.start - np.where(kind == Kind.RECEIVED, self.half, 0)
        order = np.argsort(at, kind="stable")
        rows, at, is_segment = rows[order], at[order], np.isin(kind[order], _SEGMENTS)
        kept = _telling(at, stalls, elapsed)
        passed: Ints = np.cumsum(is_segment) - is_segment  # segments before each row
        steps: list[LadderStep] = []
        for before, place in zip([-1, *kept.tolist()], kept.tolist(), strict=False):
            shown = passed[before] + is_segment[before] if before >= 0 else 0
            first, *more = self._steps(int(rows[place]), int(at[place]))
            steps += [first.model_copy(update={"left_out": int(passed[place] - shown)}), *more]
        return steps

    def _paired(self, rows: Ints) -> Bools:
        """Whether each row is the arrival of what the other end was seen to send: then the sending draws it."""
        line = self.timeline
        paired = np.zeros(len(rows), bool)
        if len(self.watched) < 2:
            return paired
        received = line.segments["kind"][rows] == Kind.RECEIVED
        for way in (True, False):
            sent, seq, end = self.lanes[Kind.SENT, way]
            mine = np.flatnonzero(received & (line.segments["to_server"][rows] == way))
            if not len(sent):
                continue
            order = np.argsort(seq, kind="stable")
            reach = np.maximum.accumulate(end[order])
            place = np.searchsorted(seq[order], line.seq64[rows[mine]], side="right") - 1
            covered = (place >= 0) & (reach[np.maximum(place, 0)] > line.seq64[rows[mine]])
            bare = line.segments["bytes"][rows[mine]] == 0
            paired[mine] = np.where(bare, np.isin(line.ack64[rows[mine]], line.ack64[sent]), covered)
        return paired

    def _steps(self, row: int, at: int) -> Iterator[LadderStep]:
        """What one row draws."""
        segment, line = self.timeline.segments[row], self.timeline
        here = _ENDS[Vantage(int(segment["vantage"]))]
        kind, to_server = Kind(int(segment["kind"])), bool(segment["to_server"])
        seq = int(line.seq64[row]) - self.base[to_server]
        if kind == Kind.WRITE_HELD:
            nagle = not segment["nonagle"] & Nonagle.OFF
            state = f"{'Nagle on' if nagle else 'Nagle off'}, {segment['in_flight']} in flight"
            note = f"{segment['bytes']} B written, held ({state})"
            size = int(segment["bytes"])
            yield LadderStep(at_ns=at, sender=here, kind="write-held", note=note, seq=seq, bytes=size)
            return
        if kind == Kind.ACK_TIMER:
            note = "delayed-ACK timer fired, an ACK was pending"
            yield LadderStep(at_ns=at, sender=here, kind="ack-timer", note=note)
            return
        sent = kind == Kind.SENT
        for stretch in self._stretches(row) if sent else [_Stretch(0, int(segment["bytes"]), at + self.half)]:
            unseen = stretch.arrives is None and not stretch.lost
            yield LadderStep(
                at_ns=at,
                arrives_ns=at + self.half if unseen else stretch.arrives,
                sender=End.CLIENT if to_server else End.SERVER,
                estimated=unseen or not sent,
                seq=seq + stretch.first,
                bytes=stretch.last - stretch.first,
                ack=int(line.ack64[row]) - self.base[not to_server] if segment["tcp_flags"] & Flag.ACK else 0,
                flags=_flags(segment["tcp_flags"]),
            )

    def _stretches(self, row: int) -> list[_Stretch]:
        """What became of the bytes of a sending."""
        line = self.timeline
        first, last = int(line.seq64[row]), int(line.end64[row])
        sent, came = (self._alike(row, kind) for kind in _SEGMENTS)
        edges = [numbers[at] for numbers in (line.seq64, line.end64) for at in (sent, came)]
        cuts = np.unique(np.clip(np.concatenate(edges), first, last)).tolist()
        found: list[_Stretch] = []
        for low, high in pairwise(cuts if last > first else (first, first)):
            carried, arrived = (
                at[(line.seq64[at] <= low) & (line.end64[at] >= high)].tolist() for at in (sent, came)
            )
            pairs = _arrivals(carried, arrived)
            arrives = int(line.time[pairs[row]]) - self.start if row in pairs else None
            # An arrival without a sending may be this one's, where the two clocks disagree.
            lost = arrives is None and len(pairs) == len(arrived) and self._was_watched(row)
            before = found[-1] if found else None
            if before and (before.arrives is None, before.lost) == (arrives is None, lost):
                latest = None if arrives is None else max(arrives, before.arrives or arrives)
                found[-1] = _Stretch(before.first, high - first, latest, lost)
            else:
                found.append(_Stretch(low - first, high - first, arrives, lost))
        return found

    def _was_watched(self, row: int) -> bool:
        """Whether the other end was watched when this sending should have arrived."""
        segment = self.timeline.segments[row]
        there = Vantage.SERVER if segment["vantage"] == Vantage.CLIENT else Vantage.CLIENT
        since, until = self.watched.get(there, (0, -1))
        return since <= int(segment["time_ns"]) + self.half <= until

    def _alike(self, row: int, kind: Kind) -> Ints:
        """Rows of ``kind`` that share bytes with this sending, or are the same where it has none."""
        line, segments = self.timeline, self.timeline.segments
        rows, seq, end = self.lanes[kind, bool(segments["to_server"][row])]
        first, last = line.seq64[row], line.end64[row]
        shared = (seq < last) & (end > first) if last > first else (seq == first) & (end == first)
        alike: Ints = rows[shared]
        alike = alike[line.ack64[alike] == line.ack64[row]]
        if last == first:
            alike = alike[segments["tcp_flags"][alike] & _TURNS == segments["tcp_flags"][row] & _TURNS]
        return alike


def _arrivals(sent: list[int], came: list[int]) -> dict[int, int]:
    """For each sending of the same bytes that arrived its arrival; rows are in order of time."""
    found: dict[int, int] = {}
    waiting = list(sent)
    for there in reversed(came):
        while waiting and waiting[-1] > there:
            waiting.pop()
        if waiting:
            found[waiting.pop()] = there
    return found


def _telling(at: Ints, stalls: list[Stall], elapsed: int) -> Ints:
    """Of moments in order those to show: all, or evenly the next to the ends of exchange and longest stalls."""
    if len(at) <= MOST_STEPS:
        return np.arange(len(at))
    longest = sorted(stalls, key=lambda stall: stall.start_ns - stall.end_ns)[:LONGEST_STALLS]
    moments = [0, elapsed, *(moment for stall in longest for moment in (stall.start_ns, stall.end_ns))]
    # Steps and the places between them, doubled: what begins a stall and what ends it are equally near.
    places = np.searchsorted(at, moments, side="left") + np.searchsorted(at, moments, side="right")
    away = np.full(len(at), 2 * len(at))
    for place in places:
        away = np.minimum(away, np.abs(2 * np.arange(len(at)) + 1 - place))
    away[[0, -1]] = -1
    return np.sort(np.argsort(away, kind="stable")[:MOST_STEPS])


def _stalls(parts: Parts, exchange: int, cause: Cause, start: int) -> list[Stall]:
    """The parts of the cause; two claims that meet (three writes, all held) are one stall."""
    mine = np.flatnonzero((parts.exchange == exchange) & (parts.cause == CAUSES.index(cause)))
    stalls: list[Stall] = []
    for begin, end in zip(parts.start[mine].tolist(), parts.end[mine].tolist(), strict=True):
        if stalls and stalls[-1].end_ns == begin - start:
            stalls[-1] = stalls[-1].model_copy(update={"end_ns": end - start})
        else:
            stalls.append(Stall(start_ns=begin - start, end_ns=end - start, label=cause))
    return stalls


def _flags(bits: int) -> str:
    return " ".join(flag.name or "" for flag in Flag if bits & flag and flag is not Flag.ACK) or (
        "ACK" if bits & Flag.ACK else ""
    )
