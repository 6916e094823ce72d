"""``receive-window``: the receiver has no room for more (RFC 9293 3.8.6; ``tcp_snd_wnd_test``)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Rule, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Holds that the sender's kernel puts down to this rule."""
    held = waits.holds.chosen(waits.holds.rule == Rule.RECEIVE_WINDOW)
    time = waits.timeline.time
    return [
        Claims.of(
            Cause.RECEIVE_WINDOW,
            held.exchange,
            time[held.row],
            time[held.release],
            observed=True,
            evidence=held.row,
            holding=held.vantage,
        )
    ]
