"""``receive-window``: the receiver has no room for more (RFC 9293 3.8.6; ``tcp_snd_wnd_test``).

The sender's kernel tells. Packets show it from either end: the window that was advertised had no room for another full
segment, and the next data came right after the window update.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.clocked import TURNAROUND_NS
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.holds import Rule, Waits
from ackward.diagnosis.segmented import NEVER, running_max
from ackward.diagnosis.windows import edge
from ackward.model.causes import Cause
from ackward.model.segments import Kind, Vantage


def claims(waits: Waits) -> list[Claims]:
    """Holds by this rule as the sender's kernel says, or as the advertised window shows."""
    held = waits.holds.chosen(waits.holds.rule == Rule.RECEIVE_WINDOW)
    told = waits.told(Cause.RECEIVE_WINDOW, held)
    seen = waits.let_go(Cause.RECEIVE_WINDOW, waits.clocked.chosen(waits.clocked.blocked))
    return [told, seen, *(_at_receiver(waits.timeline, end) for end in waits.timeline.vantages)]


def _at_receiver(timeline: Timeline, vantage: Vantage) -> Claims:
    """The end had advertised no room, opened its window, and data followed about a round trip later."""
    segments, flow, time = timeline.segments, timeline.segments["flow"], timeline.time
    here = timeline.at(vantage) & (timeline.exchange >= 0)
    arrived = here & (segments["kind"] == Kind.RECEIVED) & timeline.fresh
    sent = here & (segments["kind"] == Kind.SENT) & (timeline.ack64 > NEVER)
    allowed = timeline.ack64 + segments["window"]
    update, told = np.zeros(len(segments), bool), np.flatnonzero(sent)
    limit = edge(timeline, sent, told)
    opens = allowed[told] - limit >= segments["mss"][told]
    told, limit = told[opens], limit[opens]
    update[told] = limit - running_max(flow, timeline.end64, where=arrived, at=told) < segments["mss"][told]

    watched = timeline.has_server if vantage == Vantage.CLIENT else timeline.has_client
    row = np.flatnonzero(arrived)
    row = row[~watched[timeline.exchange[row]]]
    opened = timeline.previous(update, row)
    row, opened = row[opened >= 0], opened[opened >= 0]
    before = timeline.previous(arrived, row)
    rtt = timeline.min_rtt[timeline.exchange[row]]
    waited = (
        (before >= 0)
        & (opened > before)
        & (timeline.exchange[np.maximum(before, 0)] == timeline.exchange[row])
    )
    waited &= time[row] - time[np.maximum(opened, 0)] <= rtt + rtt // 2 + TURNAROUND_NS
    row, before, opened = row[waited], before[waited], opened[waited]
    return Claims.of(
        Cause.RECEIVE_WINDOW,
        timeline.exchange[row],
        time[before],
        time[row],
        observed=False,
        evidence=opened,
        holding=1 - int(vantage),
    )
