"""ACKs that were being waited for, as seen from the receiver's host: delayed ones, and prompt ones.

The kernel tells when a delayed-ACK timer fired with an ACK pending: that is observed. A capture at that host shows only
the outcome, an ACK without data that left long after the data it acknowledges: that is inferred.

Arming is not delaying: an armed ACK often leaves with data. Firing is not delaying either, if nothing was pending (the
recorder leaves those out) or if nobody waited: only a peer that sends again as soon as the ACK arrives had waited. A
peer that again and again sent a small segment while an earlier small one was unacknowledged does not run Nagle's
algorithm (``tcp_minshall_check``), so nothing it sends just after an ACK was held by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.columns import Entries
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.minshall import breaks_rule
from ackward.diagnosis.segmented import Bools, Ints, running_max
from ackward.model.segments import Kind, Vantage

#: An ACK without data that leaves this long after the data was delayed on purpose: delayed-ACK timers are 8 ms at the
#: least (a capped one), scheduling delays of a receiver rarely more than a few.
LATE_NS = 5_000_000
#: What a peer needs to process the ACK and send, beyond 1.5 smallest round trips.
PROMPT_SLACK_NS = 250_000
#: Share of a flow's fired timers that must be answered promptly before any of them counts.
CONSISTENT = 0.5


@dataclass(frozen=True)
class AwaitedAcks(Entries):
    """One entry an ACK that the peer waited for.

    ``data`` is the row of the last data before it, ``ack`` that of the ACK, ``released`` the data that the ACK let go;
    ``timer`` is the row that shows the delay: the timer's if the kernel told us (``observed``), else the ACK's.
    ``small``: the last data was no full segment, so the peer was not out of window. ``sender_watched``: the peer's own
    host was watched too and knows better. ``late``: the ACK was delayed.
    """

    data: Ints
    timer: Ints
    ack: Ints
    released: Ints
    vantage: Ints
    exchange: Ints
    small: Bools
    sender_watched: Bools
    observed: Bools
    late: Bools


def awaited_acks(timeline: Timeline) -> AwaitedAcks:
    """All of a timeline, from both ends."""
    parts = [_at(timeline, vantage) for vantage in timeline.vantages]
    return AwaitedAcks.joined(parts)


def _at(timeline: Timeline, vantage: Vantage) -> AwaitedAcks:
    segments, flow, time = timeline.segments, timeline.segments["flow"], timeline.time
    here = timeline.at(vantage)
    sent = here & (segments["kind"] == Kind.SENT)
    arrived = here & (segments["kind"] == Kind.RECEIVED) & timeline.fresh
    fired = segments["kind"] == Kind.ACK_TIMER
    pure = _bare(timeline, here & fired, sent)
    timer = np.flatnonzero(here & (fired | pure) & (timeline.exchange >= 0))

    ack = np.where(fired[timer], timeline.following(sent, timer), timer)
    data = timeline.previous(arrived, timer)
    released = timeline.following(arrived, timer)
    answer = timeline.following(sent & (segments["bytes"] > 0), timer)
    whole = (ack >= 0) & (data >= 0) & (released >= 0)
    timer, ack, data, released, answer = timer[whole], ack[whole], data[whole], released[whole], answer[whole]

    exchange, late = timeline.exchange[timer], fired[timer] | (time[timer] - time[data] > LATE_NS)
    rtt = timeline.min_rtt[exchange]
    alone = segments["bytes"][ack] == 0
    alone &= (answer < 0) | (answer > released)
    until = time[released] - time[ack]
    waited = alone & (until >= 0) & (until <= rtt * 3 // 2 + PROMPT_SLACK_NS)
    # After a prompt ACK only a whole round trip tells a hold from a program's own pause, if it is longer than a turn.
    waited &= late | ((until >= rtt * 3 // 4) & (rtt > PROMPT_SLACK_NS * 2))

    small = timeline.not_full
    kind = flow[timer].astype(np.int64) * 2 + late
    tried = np.bincount(kind[late | alone], minlength=int(kind.max()) + 1 if len(kind) else 1)
    answered = np.bincount(kind[waited], minlength=len(tried))
    keep = waited & (answered[kind] >= CONSISTENT * tried[kind])
    keep[keep] = ~breaks_rule(timeline, arrived & small, sent, flow[timer[keep]])
    watched = (timeline.has_server if vantage == Vantage.CLIENT else timeline.has_client)[exchange]
    return AwaitedAcks(
        data[keep],
        timer[keep],
        ack[keep],
        released[keep],
        np.full(int(keep.sum()), int(vantage), np.int64),
        exchange[keep],
        small[data][keep],
        watched[keep],
        fired[timer][keep],
        late[keep],
    )


def delays(timeline: Timeline, vantage: Vantage) -> Bools:
    """Rows of this end that show a delayed ACK: its timer where the kernel told of it, else the late ACK itself."""
    here, kind = timeline.at(vantage), timeline.segments["kind"]
    fired, sent = here & (kind == Kind.ACK_TIMER), here & (kind == Kind.SENT)
    arrived = here & (kind == Kind.RECEIVED) & timeline.fresh
    bare = np.flatnonzero(_bare(timeline, fired, sent))
    data = timeline.previous(arrived, bare)
    late: Bools = fired.copy()
    late[bare] |= (data >= 0) & (timeline.time[bare] - timeline.time[data] > LATE_NS)
    return late


def _bare(timeline: Timeline, fired: Bools, sent: Bools) -> Bools:
    """Rows of ``sent`` without data that acknowledge something, and that no timer sent which the kernel told of."""
    flow = timeline.segments["flow"]
    row = np.flatnonzero(sent & (timeline.segments["bytes"] == 0))
    acknowledged = running_max(flow, timeline.ack64, where=sent, inclusive=False, at=row)
    row = row[timeline.ack64[row] > acknowledged]
    timer, before = timeline.previous(fired, row), timeline.previous(sent, row)
    told = (timer >= 0) & (timer > before)
    bare = np.zeros(len(sent), bool)
    bare[row[~told]] = True
    return bare
