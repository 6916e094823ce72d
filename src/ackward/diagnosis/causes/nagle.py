"""``nagle``: Nagle's algorithm holds data although the ACK comes at once: one round trip lost a hold.

RFC 896; ``tcp_nagle_check`` (net/ipv4/tcp_output.c). What a sluggish ACK adds makes it a standoff.
"""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Rule, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Holds by Nagle that an ACK ended, and that are no standoff."""
    held = waits.holds.chosen((waits.holds.rule == Rule.NAGLE) & (waits.holds.ack >= 0) & ~waits.standoffs)
    time = waits.timeline.time
    return [
        Claims.of(
            Cause.NAGLE,
            held.exchange,
            time[held.row],
            time[held.release],
            observed=True,
            evidence=held.ack,
            holding=held.vantage,
        )
    ]
