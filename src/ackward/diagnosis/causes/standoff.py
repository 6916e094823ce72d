"""``standoff``: Nagle's algorithm holds data while the peer sits on the ACK that would release it.

At the holding end the kernel tells both halves: when the write came and was not sent, and which ACK let it go. At the
delaying end it tells one: the delayed-ACK timer fired with an ACK pending, and the peer's next data arrived one round
trip later. The first is proof; the second is proof of the delay, and of the hold only by its repetition, so it counts
where at least half of a flow's fired timers are answered that promptly (a program that happens to write just then is
not). RFC 896, RFC 1122 4.2.3.4; ``tcp_nagle_check``, ``tcp_delack_timer_handler``.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims, other
from ackward.diagnosis.holds import DELAY_FLOOR_NS, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """From the holding end where it was watched, else from the delaying end; from packets at either."""
    timeline = waits.timeline
    held = waits.holds.chosen(waits.standoffs)
    timer = waits.delay_before(np.maximum(held.ack, 0), held.vantage)
    told = np.where(timer > held.row, timer, held.ack)
    seen = Claims.of(
        Cause.STANDOFF,
        held.exchange,
        timeline.time[held.row],
        timeline.time[held.release],
        observed=True,
        evidence=told,
        holding=held.vantage,
        delaying=other(held.vantage),
    )
    fired = waits.awaited_acks
    fired = fired.chosen(fired.late & fired.small & ~fired.sender_watched)
    felt = waits.felt(Cause.STANDOFF, fired, delayed=True)
    clocked = waits.clocked
    late = clocked.late > np.maximum(DELAY_FLOOR_NS, timeline.min_rtt[clocked.exchange])
    clocked = clocked.chosen(clocked.small & clocked.drained & clocked.nagle & late)
    shown = waits.let_go(Cause.STANDOFF, clocked, delaying=other(clocked.vantage))
    return [seen, felt, shown]
