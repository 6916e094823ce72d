"""``retransmission-timeout``: data or a SYN was lost, and only the retransmission timer noticed (RFC 6298)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.losses import Trigger
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Repairs with this trigger."""
    return [waits.repaired(Cause.RETRANSMISSION_TIMEOUT, Trigger.TIMEOUT)]
