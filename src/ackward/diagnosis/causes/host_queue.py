"""``host-queue``: the sender's own host holds the data back: autocorking, TCP small queues, a full qdisc.

``tcp_should_autocork``, ``tcp_small_queue_check`` (net/ipv4/tcp.c, tcp_output.c).
"""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Rule, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Holds that the sender's kernel puts down to this rule."""
    held = waits.holds.chosen(waits.holds.rule == Rule.HOST_QUEUE)
    time = waits.timeline.time
    return [
        Claims.of(
            Cause.HOST_QUEUE,
            held.exchange,
            time[held.row],
            time[held.release],
            observed=True,
            evidence=held.row,
            holding=held.vantage,
        )
    ]
