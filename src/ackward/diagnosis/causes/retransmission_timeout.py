"""``retransmission-timeout``: data or a SYN was lost, and only the retransmission timer noticed (RFC 6298)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.losses import Trigger
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """From the first sending (or the hole that it left) to the repair. Inferred: a capture shows no timers."""
    found = waits.losses.chosen(waits.losses.trigger == Trigger.TIMEOUT)
    time = waits.timeline.time
    return [
        Claims.of(
            Cause.RETRANSMISSION_TIMEOUT,
            found.exchange,
            found.since,
            time[found.row],
            observed=False,
            evidence=found.row,
            holding=found.vantage,
        )
    ]
