"""``delayed-ack``: a sender out of window waits for an ACK that is being delayed.

Nothing is held by Nagle: the congestion window is full, and the peer's timer decides when it opens. RFC 1122 4.2.3.2.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims, other
from ackward.diagnosis.holds import Rule, Waits
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
    fired = waits.delayed_acks
    fired = fired.chosen(~fired.small & ~fired.sender_watched)
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
    return [seen, felt]
