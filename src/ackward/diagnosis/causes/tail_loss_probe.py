"""``tail-loss-probe``: the last segment was unacknowledged for about two round trips and sent again (RFC 8985 7)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.losses import Trigger
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Repairs with this trigger."""
    return [waits.repaired(Cause.TAIL_LOSS_PROBE, Trigger.PROBE)]
