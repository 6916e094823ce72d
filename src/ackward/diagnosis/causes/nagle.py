"""``nagle``: Nagle's algorithm holds data although the ACK comes at once: one round trip lost a hold.

RFC 896; ``tcp_nagle_check`` (net/ipv4/tcp_output.c). What a sluggish ACK adds makes it a standoff.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.clocked import TURNAROUND_NS
from ackward.diagnosis.holds import DELAY_FLOOR_NS, Rule, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Holds by Nagle that an ACK ended, and that are no standoff: told by the kernel, or by packets alone."""
    held = waits.holds.chosen((waits.holds.rule == Rule.NAGLE) & (waits.holds.ack >= 0) & ~waits.standoffs)
    time = waits.timeline.time
    shown = waits.clocked
    rtt = waits.timeline.min_rtt[shown.exchange]
    # Where a round trip is no longer than a turnaround, timing cannot tell a hold from a program's own pause.
    told = shown.small & shown.drained & shown.nagle & (rtt > TURNAROUND_NS)
    shown = shown.chosen(told & (shown.late <= np.maximum(DELAY_FLOOR_NS, rtt)))
    prompt = waits.awaited_acks
    prompt = prompt.chosen(~prompt.late & prompt.small & ~prompt.sender_watched)
    return [
        waits.felt(Cause.NAGLE, prompt, delayed=False),
        waits.let_go(Cause.NAGLE, shown),
        Claims.of(
            Cause.NAGLE,
            held.exchange,
            time[held.row],
            time[held.release],
            observed=True,
            evidence=held.ack,
            holding=held.vantage,
        ),
    ]
