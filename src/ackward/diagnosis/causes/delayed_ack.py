"""``delayed-ack``: a sender out of window waits for an ACK that is being delayed.

Nothing is held by Nagle: the congestion window is full, and the peer's timer decides when it opens. RFC 1122 4.2.3.2.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims, other
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.holds import DELAY_FLOOR_NS, Holds, Rule, Waits
from ackward.diagnosis.segmented import Bools
from ackward.model.causes import Cause
from ackward.model.segments import Vantage


def claims(waits: Waits) -> list[Claims]:
    """From the sender: a hold by the congestion window whose ACK came late. From the receiver: its timer fired."""
    timeline, held = waits.timeline, waits.holds
    held = held.chosen((held.rule == Rule.CONGESTION_WINDOW) & (held.ack >= 0))
    told = waits.delay_before(held.ack, held.vantage) > held.row
    late = told | _long_due(timeline, held)
    told, held = told[late], held.chosen(late)
    seen = Claims.of(
        Cause.DELAYED_ACK,
        held.exchange,
        timeline.time[held.row],
        timeline.time[held.release],
        observed=told,
        evidence=held.ack,
        holding=held.vantage,
        delaying=other(held.vantage),
    )
    fired = waits.awaited_acks
    fired = fired.chosen(fired.late & ~fired.small & ~fired.sender_watched)
    felt = waits.felt(Cause.DELAYED_ACK, fired, delayed=True)
    held_back = waits.clocked
    late = held_back.late > np.maximum(DELAY_FLOOR_NS, timeline.min_rtt[held_back.exchange] // 2)
    few = held_back.flight <= 2 * timeline.segments["mss"][held_back.before].astype(np.int64)
    held_back = held_back.chosen(~held_back.small & held_back.drained & late & few & ~held_back.blocked)
    shown = waits.let_go(Cause.DELAYED_ACK, held_back, delaying=other(held_back.vantage))
    return [seen, felt, shown]


def _long_due(timeline: Timeline, held: Holds) -> Bools:
    """Holds whose ACK came late from a host that was not watched, for so few segments that none had forced it."""
    segments, exchange = timeline.segments, held.exchange
    watched = np.where(
        held.vantage == Vantage.CLIENT, timeline.has_server[exchange], timeline.has_client[exchange]
    )
    unacked = np.zeros(len(exchange), np.int64)
    for end in timeline.vantages:
        mine = held.vantage == end
        unacked[mine] = (timeline.ack64 - timeline.acked(end))[held.ack[mine]]
    few = unacked <= 2 * segments["mss"][held.row].astype(np.int64)
    floor = np.maximum(DELAY_FLOOR_NS, timeline.min_rtt[exchange] // 2)
    late: Bools = ~watched & few & (held.ack_delay > floor)
    return late
