"""``ack-holding``: a peer that acknowledges less often than every second segment, while the sender is out of window.

RFC 9293 3.8.6.3 asks for an ACK at least every second full segment, so at most one may stay unacknowledged. Receivers
that hold more (Onload's EF_DYNAMIC_ACK_THRESH, ACK thinning in a link) leave a sender whose window is small with
nothing to do but send a tail-loss probe.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims, other
from ackward.diagnosis.holds import DELAY_FLOOR_NS, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """More than two full segments in flight, and one ACK for all, or all but one: what it took beyond a round trip."""
    timeline, held = waits.timeline, waits.clocked
    mss = timeline.segments["mss"][held.before].astype(np.int64)
    late = held.late > np.maximum(DELAY_FLOOR_NS, timeline.min_rtt[held.exchange] // 2)
    held = held.chosen(
        ~held.small & (held.left <= mss) & late & (held.flight - held.left > 2 * mss) & ~held.blocked
    )
    return [
        Claims.of(
            Cause.ACK_HOLDING,
            held.exchange,
            timeline.time[held.ack] - held.late,
            timeline.time[held.row],
            observed=False,
            evidence=held.ack,
            holding=held.vantage,
            delaying=other(held.vantage),
        )
    ]
