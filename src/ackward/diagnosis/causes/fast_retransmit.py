"""``fast-retransmit``: a segment was lost, and the ACKs for those behind it said so (RFC 5681 3.2, RFC 8985)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.losses import Trigger
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """From the first sending (or the hole that it left) to the repair. Inferred: a capture shows no timers."""
    found = waits.losses.chosen(waits.losses.trigger == Trigger.FAST)
    time = waits.timeline.time
    return [
        Claims.of(
            Cause.FAST_RETRANSMIT,
            found.exchange,
            found.since,
            time[found.row],
            observed=False,
            evidence=found.row,
            holding=found.vantage,
        )
    ]
