"""``tail-loss-probe``: the last segment was unacknowledged for about two round trips and sent again (RFC 8985 7)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.losses import Trigger
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """From the first sending (or the hole that it left) to the repair. Inferred: a capture shows no timers."""
    found = waits.losses.chosen(waits.losses.trigger == Trigger.PROBE)
    time = waits.timeline.time
    return [
        Claims.of(
            Cause.TAIL_LOSS_PROBE,
            found.exchange,
            found.since,
            time[found.row],
            observed=False,
            evidence=found.row,
            holding=found.vantage,
        )
    ]
