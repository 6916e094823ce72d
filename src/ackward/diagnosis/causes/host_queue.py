"""``host-queue``: the sender's own host holds the data back: autocorking, TCP small queues, a full qdisc.

``tcp_should_autocork``, ``tcp_small_queue_check`` (net/ipv4/tcp.c, tcp_output.c).
"""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Rule, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Holds that the sender's kernel puts down to this rule."""
    return [waits.told(Cause.HOST_QUEUE, waits.holds.chosen(waits.holds.rule == Rule.HOST_QUEUE))]
