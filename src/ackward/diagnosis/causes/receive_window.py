"""``receive-window``: the receiver has no room for more (RFC 9293 3.8.6; ``tcp_snd_wnd_test``)."""

from __future__ import annotations

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Rule, Waits
from ackward.model.causes import Cause


def claims(waits: Waits) -> list[Claims]:
    """Holds by this rule as the sender's kernel says, or as the advertised window shows."""
    held = waits.holds.chosen(waits.holds.rule == Rule.RECEIVE_WINDOW)
    time = waits.timeline.time
    shown = waits.clocked.chosen(waits.clocked.blocked)
    return [
        Claims.of(
            Cause.RECEIVE_WINDOW,
            shown.exchange,
            time[shown.before],
            time[shown.row],
            observed=False,
            evidence=shown.ack,
            holding=shown.vantage,
        ),
        Claims.of(
            Cause.RECEIVE_WINDOW,
            held.exchange,
            time[held.row],
            time[held.release],
            observed=True,
            evidence=held.row,
            holding=held.vantage,
        ),
    ]
