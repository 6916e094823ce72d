"""``slow-start``: the congestion window still grew from its small beginning, a round trip a step (RFC 5681 3.1)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits, Window
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Holds by a window that the kernel still grew, and waits between flights that packets show growing."""
    held, waited = waits.holds.chosen(waits.window_rule == Window.GROWING), waits.flights
    waited = waited.chosen(waited.growing & ~waited.again)
    return [waits.told(Cause.SLOW_START, held), waits.between_flights(Cause.SLOW_START, waited)]
