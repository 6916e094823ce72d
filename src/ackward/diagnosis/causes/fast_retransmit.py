"""``fast-retransmit``: a segment was lost, and the ACKs for those behind it said so (RFC 5681 3.2, RFC 8985)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.losses import Trigger
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Repairs with this trigger."""
    return [waits.repaired(Cause.FAST_RETRANSMIT, Trigger.FAST)]
