"""Bytes that a program has written and its kernel has not sent: since when, until when, and by which rule.

The rules are those of ``tcp_write_xmit`` and ``tcp_nagle_check`` (net/ipv4/tcp_output.c), read off the socket's own
state at the moment when ``send()`` returned or a segment left with more data behind it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ackward.diagnosis.claims import NO_END, Claims, other
from ackward.diagnosis.clocked import Clocked, clocked
from ackward.diagnosis.columns import Entries
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.flights import IDLE_NS, Flights, flights
from ackward.diagnosis.losses import Losses, Trigger, losses
from ackward.diagnosis.segmented import Bools, Ints, running_max
from ackward.diagnosis.timers import AwaitedAcks, awaited_acks, delays
from ackward.model.causes import Cause
from ackward.model.segments import Kind, Nonagle, Segments, Vantage

#: An ACK this much later than one round trip was delayed by the receiver, not by the path. Linux delays 40 ms or more
#: (TCP_DELACK_MIN, TCP_ATO_MIN), others up to 500 ms (RFC 1122 4.2.3.2); a capped timer may be as low as 8 ms.
DELAY_FLOOR_NS = 2_000_000
#: An exchange in which the window grew by this was in slow start: congestion avoidance adds one segment a round trip.
GROWTH = 1.5


class Rule(enum.IntEnum):
    """Why data stays in the send queue."""

    NAGLE = 0
    CORK = 1
    CONGESTION_WINDOW = 2
    RECEIVE_WINDOW = 3
    HOST_QUEUE = 4


class Window(enum.IntEnum):
    """What the congestion window was doing while it held data back."""

    FULL = 0
    GROWING = 1
    AFTER_IDLE = 2


@dataclass(frozen=True)
class Holds(Entries):
    """One entry a hold. ``row`` is where it was seen, ``release`` the row of the segment that ended it.

    ``ack`` is the row of the ACK that let it go, or -1 if the program's next write did; ``ack_delay`` is what that ACK
    took beyond one round trip, in nanoseconds.
    """

    row: Ints
    release: Ints
    ack: Ints
    ack_delay: Ints
    rule: Ints
    vantage: Ints
    exchange: Ints


def rule_of(state: Segments, queued: Ints) -> Ints:
    """By which :class:`Rule` a socket in each ``state`` keeps ``queued`` bytes back; the rows need no other columns."""
    own = np.where(state["kind"] == Kind.SENT, state["segments"], 0)
    in_flight = state["in_flight"].astype(np.int64) + own
    room = state["snd_una"].astype(np.int64) + state["peer_window"] - state["snd_nxt"]
    room = (
        (room + (1 << 31)) % (1 << 32) - (1 << 31) - np.where(state["kind"] == Kind.SENT, state["bytes"], 0)
    )
    partial = queued < np.maximum(state["mss"], 1)
    corked = state["nonagle"] & Nonagle.CORK > 0
    nagle = partial & (in_flight > 0) & (state["nonagle"] & Nonagle.OFF == 0)
    rule = np.full(len(state), Rule.HOST_QUEUE, np.int64)
    rule[nagle] = Rule.NAGLE
    rule[corked & partial] = Rule.CORK
    rule[in_flight >= state["cwnd"]] = Rule.CONGESTION_WINDOW
    rule[room < np.minimum(queued, state["mss"])] = Rule.RECEIVE_WINDOW
    return rule


@dataclass(frozen=True)
class Waits:
    """Holds and delayed-ACK timers of a timeline, worked out once for all causes that ask."""

    timeline: Timeline

    @cached_property
    def holds(self) -> Holds:
        """All holds that a kernel told us of."""
        parts = [self._holds_at(vantage) for vantage in self.timeline.vantages]
        return Holds.joined(parts)

    def _holds_at(self, vantage: Vantage) -> Holds:
        timeline = self.timeline
        segments, time = timeline.segments, timeline.time
        here = timeline.at(vantage)
        sent = here & (segments["kind"] == Kind.SENT) & timeline.fresh
        received = here & (segments["kind"] == Kind.RECEIVED)
        written = here & (segments["kind"] == Kind.WRITE_HELD)
        row = np.flatnonzero(((sent & segments["has_state"]) | written) & (timeline.exchange >= 0))
        release, wrote = timeline.following(sent, row), written[row]
        # SENT rows were taken before the kernel moved snd_nxt over them, so their own bytes are not unsent any more.
        own = timeline.end64[row] - timeline.seq64[row]
        unsent = (segments["write_seq"][row] - own - segments["seq"][row]) % (1 << 32)
        queued = np.where(wrote, segments["bytes"][row], unsent)
        # A write behind a held one waits in the same hold, which began with the first.
        earlier = timeline.previous(written, row)
        joins = (earlier >= 0) & (timeline.following(sent, earlier) == release)
        begins = (release >= 0) & np.where(wrote, ~joins, unsent > 0)
        row, release, queued = row[begins], release[begins], queued[begins]
        last_ack = timeline.previous(received, release)
        in_flight_until = np.where(written[row], timeline.seq64[row], timeline.end64[row])
        by_ack = (last_ack > row) & (timeline.ack64[np.maximum(last_ack, 0)] >= in_flight_until)
        last_sent = timeline.previous(here & (segments["kind"] == Kind.SENT) & (segments["bytes"] > 0), row)
        last_sent = np.where(segments["kind"][row] == Kind.SENT, row, last_sent)
        since = np.where(last_sent >= 0, time[np.maximum(last_sent, 0)], time[row])
        delay = time[np.maximum(last_ack, 0)] - since - timeline.min_rtt[timeline.exchange[row]]
        return Holds(
            row,
            release,
            np.where(by_ack, last_ack, -1),
            np.where(by_ack, np.maximum(delay, 0), 0),
            rule_of(segments[row], queued),
            np.full(len(row), int(vantage), np.int64),
            timeline.exchange[row],
        )

    @cached_property
    def clocked(self) -> Clocked:
        """What packets alone tell of senders that waited for ACKs."""
        return clocked(self.timeline)

    @cached_property
    def awaited_acks(self) -> AwaitedAcks:
        """ACKs that somebody waited for, from the receivers' ends."""
        return awaited_acks(self.timeline)

    @cached_property
    def flights(self) -> Flights:
        """Waits between flights that ACKs let go."""
        return flights(self.timeline)

    @cached_property
    def losses(self) -> Losses:
        """Data sent again, and why."""
        return losses(self.timeline)

    @cached_property
    def standoffs(self) -> Bools:
        """Which of :attr:`holds` are Nagle holds whose ACK the peer sat on."""
        holds = self.holds
        floor = np.maximum(DELAY_FLOOR_NS, self.timeline.min_rtt[holds.exchange])
        sat_on: Bools = (holds.rule == Rule.NAGLE) & (holds.ack >= 0) & (holds.ack_delay > floor)
        return sat_on

    @cached_property
    def window_rule(self) -> Ints:
        """For each of :attr:`holds` by the congestion window, which :class:`Window` it was; -1 for all others."""
        timeline, holds = self.timeline, self.holds
        segments = timeline.segments
        rows = np.flatnonzero(
            (segments["kind"] == Kind.SENT)
            & segments["has_state"]
            & (segments["bytes"] > 0)  # a pure ACK before the restart carries the old window
            & (timeline.exchange >= 0)
        )
        largest, first, earlier = np.zeros((3, 2, timeline.count), np.int64)
        place = segments["vantage"][rows], timeline.exchange[rows]
        backward = place[0][::-1], place[1][::-1]
        np.maximum.at(largest, place, segments["cwnd"][rows])
        first[backward] = segments["cwnd"][rows[::-1]]
        # The last ACKs of an exchange let the window grow: what comes after it shows that, until the restart.
        cwnd = segments["cwnd"].astype(np.int64)
        for end in timeline.vantages:
            told = timeline.at(end) & segments["has_state"]
            before = running_max(segments["flow"], cwnd, where=told, inclusive=False)
            mine = rows[segments["vantage"][rows] == end][::-1]
            earlier[end, timeline.exchange[mine]] = before[mine]
        rested = np.zeros(timeline.count, bool)
        same = timeline.flow_of[1:] == timeline.flow_of[:-1]
        rested[1:] = same & (timeline.start[1:] - timeline.end[:-1] >= IDLE_NS)

        at, cwnd = (holds.vantage, holds.exchange), segments["cwnd"][holds.row]
        growing = (largest[at] >= GROWTH * first[at]) & (cwnd < largest[at])
        again = rested[holds.exchange] & (earlier[at] >= GROWTH * first[at]) & (cwnd < earlier[at])
        which = np.where(again, Window.AFTER_IDLE, np.where(growing, Window.GROWING, Window.FULL))
        return np.where(holds.rule == Rule.CONGESTION_WINDOW, which, -1)

    def told(self, cause: Cause, held: Holds) -> Claims:
        """Claims of holds that a kernel told us of."""
        time = self.timeline.time
        return Claims.of(
            cause,
            held.exchange,
            time[held.row],
            time[held.release],
            observed=True,
            evidence=held.row,
            holding=held.vantage,
        )

    def let_go(self, cause: Cause, shown: Clocked, *, delaying: Ints | int = NO_END) -> Claims:
        """Claims of senders that stood still until an ACK came, as packets show."""
        time = self.timeline.time
        return Claims.of(
            cause,
            shown.exchange,
            time[shown.before],
            time[shown.row],
            observed=False,
            evidence=shown.ack,
            holding=shown.vantage,
            delaying=delaying,
        )

    def felt(self, cause: Cause, awaited: AwaitedAcks, *, delayed: bool) -> Claims:
        """Claims of senders that stood still until an ACK came, as the end shows that sent it, and ``delayed`` it."""
        time = self.timeline.time
        return Claims.of(
            cause,
            awaited.exchange,
            time[awaited.data],
            time[awaited.released],
            observed=awaited.observed,
            evidence=awaited.timer,
            holding=other(awaited.vantage),
            delaying=awaited.vantage if delayed else NO_END,
        )

    def between_flights(self, cause: Cause, waited: Flights) -> Claims:
        """Claims of waits between flights that packets show."""
        return Claims.of(
            cause,
            waited.exchange,
            waited.since,
            waited.until,
            observed=False,
            evidence=waited.row,
            holding=waited.vantage,
        )

    def repaired(self, cause: Cause, trigger: Trigger) -> Claims:
        """Claims from the first sending (or the hole that it left) to a repair with this trigger.

        Inferred: a capture shows no timers.
        """
        found = self.losses.chosen(self.losses.trigger == trigger)
        return Claims.of(
            cause,
            found.exchange,
            found.since,
            self.timeline.time[found.row],
            observed=False,
            evidence=found.row,
            holding=found.vantage,
        )

    def delay_before(self, rows: Ints, vantage: Ints) -> Ints:
        """The latest row before ``rows`` that shows a delayed ACK at the other end than ``vantage``, else -1."""
        found = np.full(len(rows), -1, np.int64)
        for end in np.unique(vantage):
            shown = delays(self.timeline, Vantage(1 - int(end)))
            found = np.where(vantage == end, self.timeline.previous(shown, rows), found)
        return found
