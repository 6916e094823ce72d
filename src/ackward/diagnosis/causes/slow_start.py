"""``slow-start``: the congestion window still grew from its small beginning, a round trip a step (RFC 5681 3.1)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits, Window
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Holds by a window that the kernel still grew, and waits between flights that packets show growing."""
    held, time = waits.holds.chosen(waits.window_rule == Window.GROWING), waits.timeline.time
    waited = waits.flights
    waited = waited.chosen(waited.growing & ~waited.again)
    return [
        Claims.of(
            Cause.SLOW_START,
            held.exchange,
            time[held.row],
            time[held.release],
            observed=True,
            evidence=held.row,
            holding=held.vantage,
        ),
        Claims.of(
            Cause.SLOW_START,
            waited.exchange,
            waited.since,
            waited.until,
            observed=False,
            evidence=waited.row,
            holding=waited.vantage,
        ),
    ]
