"""``congestion-window``: the sender may have no more in flight until an ACK arrives (RFC 5681; ``tcp_cwnd_test``).

Packets show it as full segments that leave only as ACKs arrive, with a flight that no longer grows; while it grows it
is slow start.
"""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits, Window
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Holds that the sender's kernel puts down to this rule, and ACK-clocked flights that had stopped growing."""
    held, waited = waits.holds.chosen(waits.window_rule == Window.FULL), waits.flights
    waited = waited.chosen(~waited.growing)
    return [waits.told(Cause.CONGESTION_WINDOW, held), waits.between_flights(Cause.CONGESTION_WINDOW, waited)]
