"""``delayed-ack``: a sender out of window waits for an ACK that is being delayed.

Nothing is held by Nagle: the congestion window is full, and the peer's timer decides when it opens. RFC 1122 4.2.3.2.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims, other
from ackward.diagnosis.holds import DELAY_FLOOR_NS, Rule, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """From the sender: a hold by the congestion window whose ACK came late. From the receiver: its timer fired."""
    timeline, held = waits.timeline, waits.holds
    timer = waits.timer_before(np.maximum(held.ack, 0), held.vantage)
    held = held.chosen((held.rule == Rule.CONGESTION_WINDOW) & (held.ack >= 0) & (timer > held.row))
    seen = Claims.of(
        Cause.DELAYED_ACK,
        held.exchange,
        timeline.time[held.row],
        timeline.time[held.release],
        observed=True,
        evidence=held.ack,
        holding=held.vantage,
        delaying=other(held.vantage),
    )
    fired = waits.awaited_acks
    fired = fired.chosen(fired.late & ~fired.small & ~fired.sender_watched)
    felt = Claims.of(
        Cause.DELAYED_ACK,
        fired.exchange,
        timeline.time[fired.data],
        timeline.time[fired.released],
        observed=fired.observed,
        evidence=fired.timer,
        holding=other(fired.vantage),
        delaying=fired.vantage,
    )
    held_back = waits.clocked
    late = held_back.late > np.maximum(DELAY_FLOOR_NS, timeline.min_rtt[held_back.exchange] // 2)
    few = held_back.flight <= 2 * timeline.segments["mss"][held_back.before].astype(np.int64)
    held_back = held_back.chosen(~held_back.small & held_back.drained & late & few & ~held_back.blocked)
    shown = waits.let_go(Cause.DELAYED_ACK, held_back, delaying=other(held_back.vantage))
    return [seen, felt, shown]
