"""Delayed-ACK timers that fired and were being waited for, as the receiver's own kernel saw them.

Arming is not delaying: an armed ACK often leaves with data. Firing is not delaying either, if nothing was pending (the
recorder leaves those out) or if nobody waited: only a peer that sends again as soon as the ACK arrives had waited. A
peer that ever sent a small segment while an earlier small one was unacknowledged does not run Nagle's algorithm at all
(``tcp_minshall_check``), so nothing it sends just after an ACK was held by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.segmented import Bools, Ints, next_index, previous_index, running_max
from ackward.model.segments import Kind, Vantage

#: The timer's handler sends the ACK itself, in the same softirq.
SAME_SOFTIRQ_NS = 1_000_000
#: What a peer needs to process the ACK and send, beyond 1.5 smallest round trips.
PROMPT_SLACK_NS = 250_000
#: Share of a flow's fired timers that must be answered promptly before any of them counts.
CONSISTENT = 0.5


@dataclass(frozen=True)
class FiredWaits:
    """One entry a timer that the peer waited for.

    ``data`` is the row of the last data before it, ``timer`` and ``ack`` are what they say, ``released`` the data that
    the ACK let go. ``small``: the last data was no full segment, so the peer was not out of window. ``sender_watched``:
    the peer's own kernel was watched too and knows better.
    """

    data: Ints
    timer: Ints
    ack: Ints
    released: Ints
    vantage: Ints
    exchange: Ints
    small: Bools
    sender_watched: Bools

    def chosen(self, keep: Bools) -> FiredWaits:
        """The entries where ``keep`` holds."""
        return FiredWaits(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def fired_waits(timeline: Timeline) -> FiredWaits:
    """All of a timeline, from both ends."""
    parts = [_at(timeline, vantage) for vantage in (Vantage.CLIENT, Vantage.SERVER)]
    return FiredWaits(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in FiredWaits.__dataclass_fields__)
    )


def _at(timeline: Timeline, vantage: Vantage) -> FiredWaits:
    segments, flow, time = timeline.segments, timeline.segments["flow"], timeline.time
    here = timeline.at(vantage)
    sent = here & (segments["kind"] == Kind.SENT)
    arrived = here & (segments["kind"] == Kind.RECEIVED) & timeline.fresh
    timer = np.flatnonzero(here & (segments["kind"] == Kind.ACK_TIMER) & (timeline.exchange >= 0))

    ack = next_index(flow, sent)[timer]
    data = previous_index(flow, arrived)[timer]
    released = next_index(flow, arrived)[timer]
    answer = next_index(flow, sent & (segments["bytes"] > 0))[timer]
    whole = (ack >= 0) & (data >= 0) & (released >= 0)
    timer, ack, data, released, answer = timer[whole], ack[whole], data[whole], released[whole], answer[whole]

    exchange = timeline.exchange[timer]
    pure = (segments["bytes"][ack] == 0) & (time[ack] - time[timer] < SAME_SOFTIRQ_NS)
    until = time[released] - time[ack]
    prompt = pure & (until >= 0) & (until <= timeline.min_rtt[exchange] * 3 // 2 + PROMPT_SLACK_NS)
    prompt &= (answer < 0) | (answer > released)

    fired = np.bincount(flow[timer], minlength=1)
    answered = np.bincount(flow[timer][prompt], minlength=len(fired))
    consistent = answered[flow[timer]] >= CONSISTENT * fired[flow[timer]]
    small = _small(timeline)
    eager = np.unique(flow[_sent_unacknowledged(timeline, arrived & small, sent)])
    consistent &= ~np.isin(flow[timer], eager)
    watched = (timeline.has_server if vantage == Vantage.CLIENT else timeline.has_client)[exchange]
    keep = prompt & consistent
    return FiredWaits(
        data[keep],
        timer[keep],
        ack[keep],
        released[keep],
        np.full(int(keep.sum()), int(vantage), np.int64),
        exchange[keep],
        small[data][keep],
        watched[keep],
    )


def _small(timeline: Timeline) -> Bools:
    """Rows whose segments were not full."""
    segments = timeline.segments
    small: Bools = segments["bytes"] // np.maximum(segments["segments"], 1) < np.maximum(segments["mss"], 1)
    return small


def _sent_unacknowledged(timeline: Timeline, small: Bools, sent: Bools) -> Bools:
    """Small arrivals that left the peer before an earlier small one of the same exchange was acknowledged."""
    order = np.lexsort((np.arange(len(small)), timeline.exchange))
    group = timeline.exchange[order]
    before = running_max(group, timeline.end64[order], where=small[order], inclusive=False)
    acknowledged = running_max(group, timeline.ack64[order], where=sent[order], inclusive=False)
    found = np.zeros(len(small), bool)
    found[order] = small[order] & (group >= 0) & (before > acknowledged)
    return found
