"""``slow-start``: the congestion window still grew from its small beginning, a round trip a step (RFC 5681 3.1)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Waits between flights that still grew, up to the largest that the flow had reached."""
    waited = waits.flights
    waited = waited.chosen(waited.growing & ~waited.again)
    return [
        Claims.of(
            Cause.SLOW_START,
            waited.exchange,
            waited.since,
            waited.until,
            observed=False,
            evidence=waited.row,
            holding=waited.vantage,
        )
    ]
