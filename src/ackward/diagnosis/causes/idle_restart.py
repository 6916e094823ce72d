"""``idle-restart``: after a pause the kernel began again with a small window, although the flow had had a larger one.

``tcp_cwnd_restart`` (net.ipv4.tcp_slow_start_after_idle, RFC 5681 4.1).
"""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits, Window
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Waits between flights that grow again after an idle time, below what the flow had reached before."""
    held, waited = waits.holds.chosen(waits.window_rule == Window.AFTER_IDLE), waits.flights
    waited = waited.chosen(waited.growing & waited.again)
    return [waits.told(Cause.IDLE_RESTART, held), waits.between_flights(Cause.IDLE_RESTART, waited)]
