"""``ack-holding``: a peer that acknowledges less often than every second segment, while the sender is out of window.

RFC 9293 3.8.6.3 asks for an ACK at least every second full segment, so at most one may stay unacknowledged. Receivers
that hold more (Onload's EF_DYNAMIC_ACK_THRESH, ACK thinning in a link) leave a sender whose window is small with
nothing to do but send a tail-loss probe (``tail_loss_probe.py`` tells what such a probe ended). A probe ends no such
wait of itself: the ACK does, be it the probe's own answer.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims, other
from ackward.diagnosis.holds import DELAY_FLOOR_NS, Rule, Waits
from ackward.diagnosis.probes import of_new_data
from ackward.diagnosis.segmented import Ints, running_max
from ackward.model.causes import Cause
from ackward.model.segments import Kind, Vantage


def claims(waits: Waits) -> list[Claims]:
    """More than two full segments in flight, and one ACK for all, or all but one: what it took beyond a round trip."""
    return [_shown(waits), *(_told(waits, end) for end in waits.timeline.vantages if len(waits.holds.row))]


def _shown(waits: Waits) -> Claims:
    """From packets: data that an ACK let go."""
    timeline, held = waits.timeline, waits.clocked
    mss = timeline.segments["mss"][held.before].astype(np.int64)
    late = held.late > np.maximum(DELAY_FLOOR_NS, timeline.min_rtt[held.exchange] // 2)
    held = held.chosen(
        ~held.small & (held.left <= mss) & late & (held.flight - held.left > 2 * mss) & ~held.blocked
    )
    return _claim(waits, held.exchange, held.row, held.ack, held.late, held.vantage, observed=False)


def _told(waits: Waits, vantage: Vantage) -> Claims:
    """From the sender's kernel: data that its congestion window held, until an ACK came that was held itself."""
    timeline, holds = waits.timeline, waits.holds
    segments, flow, time = timeline.segments, timeline.segments["flow"], timeline.time
    here = timeline.at(vantage)
    sent = here & (segments["kind"] == Kind.SENT) & timeline.fresh
    received = here & (segments["kind"] == Kind.RECEIVED)
    acked = timeline.acked(vantage)
    advancing = received & (timeline.ack64 > acked)
    by_window = np.zeros(len(sent), bool)
    by_window[holds.row[(holds.rule == Rule.CONGESTION_WINDOW) & (holds.vantage == vantage)]] = True

    row = np.flatnonzero(sent & segments["has_state"] & (timeline.exchange >= 0))
    ack, held = timeline.previous(advancing, row), timeline.previous(by_window, row)
    before = timeline.previous(sent & ~of_new_data(timeline, sent, advancing), row)
    pair = (before >= 0) & (held >= before) & (ack > held)
    pair &= timeline.exchange[np.maximum(before, 0)] == timeline.exchange[row]
    row, before, ack = row[pair], before[pair], ack[pair]
    mss = segments["mss"][before].astype(np.int64)
    reached = running_max(flow, timeline.ack64, where=received, at=ack)
    left = timeline.end64[before] - reached
    late = time[ack] - time[before] - timeline.min_rtt[timeline.exchange[row]]
    # The first ACK of a connection that was accepted later than its data came is seen by the kernel alone.
    unacked = (segments["seq"] - segments["snd_una"])[before].astype(np.int32)
    since = np.maximum(acked[ack], timeline.seq64[before] - unacked)
    kept = (left <= mss) & (np.minimum(reached, timeline.end64[before]) - since > 2 * mss)
    kept &= late > np.maximum(DELAY_FLOOR_NS, timeline.min_rtt[timeline.exchange[row]] // 2)
    row, ack, late = row[kept], ack[kept], late[kept]
    ends = np.full(len(row), int(vantage), np.int64)
    return _claim(waits, timeline.exchange[row], row, ack, late, ends, observed=True)


def _claim(
    waits: Waits, exchange: Ints, row: Ints, ack: Ints, late: Ints, vantage: Ints, *, observed: bool
) -> Claims:
    time = waits.timeline.time
    return Claims.of(
        Cause.ACK_HOLDING,
        exchange,
        time[ack] - late,
        time[row],
        observed=observed,
        evidence=ack,
        holding=vantage,
        delaying=other(vantage),
    )
