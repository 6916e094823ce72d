"""``ack-holding``: a peer that acknowledges less often than every second segment, while the sender is out of window.

RFC 9293 3.8.6.3 asks for an ACK at least every second full segment. Receivers that hold more (Onload's
EF_DYNAMIC_ACK_THRESH, ACK thinning in a link) leave a sender whose window is small with nothing to do.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims, other
from ackward.diagnosis.holds import DELAY_FLOOR_NS, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Full segments, more than two in flight, and their ACK came later than a round trip."""
    timeline, held = waits.timeline, waits.clocked
    late = held.late > np.maximum(DELAY_FLOOR_NS, timeline.min_rtt[held.exchange] // 2)
    many = held.flight > 2 * timeline.segments["mss"][held.before].astype(np.int64)
    held = held.chosen(~held.small & held.drained & late & many & ~held.blocked)
    return [
        Claims.of(
            Cause.ACK_HOLDING,
            held.exchange,
            timeline.time[held.before],
            timeline.time[held.row],
            observed=False,
            evidence=held.ack,
            holding=held.vantage,
            delaying=other(held.vantage),
        )
    ]
