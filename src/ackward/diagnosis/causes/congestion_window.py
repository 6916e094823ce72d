"""``congestion-window``: the sender may have no more in flight until an ACK arrives (RFC 5681; ``tcp_cwnd_test``)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Rule, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Holds that the sender's kernel puts down to this rule."""
    held = waits.holds.chosen(waits.holds.rule == Rule.CONGESTION_WINDOW)
    time = waits.timeline.time
    return [
        Claims.of(
            Cause.CONGESTION_WINDOW,
            held.exchange,
            time[held.row],
            time[held.release],
            observed=True,
            evidence=held.row,
            holding=held.vantage,
        )
    ]
