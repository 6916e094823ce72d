"""What packets alone tell of a sender that waits for ACKs: its next segment leaves as soon as an ACK arrives.

A capture shows no writes, so each of these is inferred. The same timing has other explanations (a program that waits
until its data is acknowledged), which is why a pattern must repeat and why a sender that breaks Nagle's rule again and
again is never said to follow it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.columns import Entries
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.minshall import breaks_rule
from ackward.diagnosis.probes import of_new_data
from ackward.diagnosis.segmented import NEVER, Bools, Ints, running_max
from ackward.diagnosis.windows import edge
from ackward.model.segments import Kind, Vantage

#: From an ACK's arrival to the segment that it lets go, on one host: softirq work, and what capturing adds.
TURNAROUND_NS = 500_000
#: Share of a flow's small-then-more pauses that must be ended by an ACK before any of them counts as held.
CONSISTENT = 0.5


@dataclass(frozen=True)
class Clocked(Entries):
    """Segments of a sender at the capture's own end that an ACK let go. One entry each.

    ``before`` is the data after which the sender stood still, ``ack`` the arriving ACK, ``row`` the segment. ``small``:
    ``before`` was not a full segment. ``left``: bytes up to ``before`` that the ACK did not acknowledge, 0 or less if
    it acknowledged all. ``late``: what the ACK took beyond one round trip after ``before``. ``flight``: bytes that were
    unacknowledged just before the ACK. ``blocked``: the receiver's window was too small. ``nagle``: the flow follows
    Nagle's rule as far as it shows.
    """

    before: Ints
    ack: Ints
    row: Ints
    small: Bools
    left: Ints
    late: Ints
    flight: Ints
    blocked: Bools
    nagle: Bools
    vantage: Ints
    exchange: Ints

    @property
    def drained(self) -> Bools:
        """Nothing was in flight any more."""
        return self.left <= 0


def clocked(timeline: Timeline) -> Clocked:
    """From both ends, as far as rows come without a socket's state."""
    parts = [_at(timeline, vantage) for vantage in timeline.vantages]
    return Clocked.joined(parts)


def _at(timeline: Timeline, vantage: Vantage) -> Clocked:
    segments, flow, time = timeline.segments, timeline.segments["flow"], timeline.time
    here = timeline.at(vantage) & ~segments["has_state"]
    sent = here & (segments["kind"] == Kind.SENT) & timeline.fresh
    received = here & (segments["kind"] == Kind.RECEIVED)
    acked = timeline.acked(vantage)
    confirming = received & (timeline.ack64 > NEVER)
    allowed = timeline.ack64 + segments["window"]
    advancing = confirming & (timeline.ack64 > acked)
    # A window update counts as letting go only where the window was what held.
    update = np.flatnonzero(confirming & ~advancing)
    limit = edge(timeline, confirming, update)
    shut = limit - running_max(flow, timeline.end64, where=sent, at=update) < segments["mss"][update]
    advancing[update] = shut & (allowed[update] > limit)

    row = np.flatnonzero(sent & (timeline.exchange >= 0))
    before = timeline.previous(sent & ~of_new_data(timeline, sent, advancing), row)
    inside = (before >= 0) & (timeline.exchange[before] == timeline.exchange[row])
    row, before = row[inside], before[inside]
    ack, answer = timeline.previous(advancing, row), timeline.previous(received & timeline.fresh, row)
    pair = (ack > before) & (answer < before)
    row, before, ack = row[pair], before[pair], ack[pair]
    latest = timeline.previous(sent, row)

    small = timeline.not_full[before]
    prompt = time[row] - time[ack] <= TURNAROUND_NS
    left = timeline.end64[before] - running_max(flow, timeline.ack64, where=received, at=ack)
    late = time[ack] - time[before] - timeline.min_rtt[timeline.exchange[row]]
    flight = timeline.end64[before] - np.where(acked[ack] == NEVER, timeline.seq64[before], acked[ack])
    blocked = edge(timeline, confirming, ack) - timeline.end64[latest] < segments["mss"][before]
    paused = small & (left <= 0)
    tried = np.bincount(flow[row][paused], minlength=1)
    ended = np.bincount(flow[row][paused & prompt], minlength=len(tried))
    index = np.minimum(flow[row], len(tried) - 1)
    consistent = ended[index] >= CONSISTENT * tried[index]
    nagle = consistent & ~breaks_rule(timeline, sent & timeline.not_full, received, flow[row])
    found = Clocked(
        before, ack, row, small, left, late, flight, blocked, nagle,
        np.full(len(row), int(vantage), np.int64), timeline.exchange[row],
    )  # fmt: skip
    return found.chosen(prompt)
