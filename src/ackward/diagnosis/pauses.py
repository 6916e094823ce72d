"""Pauses of a program: it could write, nothing of it was waiting in the kernel, and it had not written yet."""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.clocked import TURNAROUND_NS
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.segmented import Bools, Ints, running_max
from ackward.model.causes import Cause
from ackward.model.segments import Flag, Kind, Vantage


def program_pauses(waits: Waits, vantage: Vantage, cause: Cause) -> Claims:
    """At a watched end: from the last data that it sent or received (or its ESTABLISHED) until its next write.

    The next write is the next segment, or the hold that delayed it. Observed where the kernel told us that the send
    queue was empty all the while; inferred where packets only make it likely.
    """
    timeline = waits.timeline
    segments, flow, time = timeline.segments, timeline.segments["flow"], timeline.time
    here = timeline.at(vantage) & (timeline.exchange >= 0)
    sent = here & (segments["kind"] == Kind.SENT) & timeline.fresh
    turns = (
        sent
        | (here & (segments["kind"] == Kind.RECEIVED) & timeline.fresh)
        | (here & (segments["kind"] == Kind.ESTABLISHED))
    )
    turns |= here & (segments["tcp_flags"] & Flag.SYN > 0)

    row = np.flatnonzero(sent)
    since = timeline.previous(turns, row)
    last_sent = timeline.previous(sent, row)
    held = timeline.following(here & (segments["kind"] == Kind.WRITE_HELD), np.maximum(since, 0))
    wrote = np.where((held >= 0) & (held < row), held, row)
    told = segments["has_state"][row]
    queued = segments["write_seq"][last_sent] - segments["seq"][last_sent] - segments["bytes"][last_sent]
    drained = (last_sent < 0) | np.where(told, queued == 0, timeline.not_full[last_sent])
    # Packets alone: after a full segment more may have been waiting, until all was acknowledged and still nothing came.
    received = here & (segments["kind"] == Kind.RECEIVED)
    open_ = np.flatnonzero(~told & ~drained)
    cleared = _cleared(timeline, received, row[open_])
    acked = running_max(flow, timeline.ack64, where=received, inclusive=False, at=row[open_])
    idle = (cleared > since[open_]) & (acked >= timeline.seq64[row[open_]])
    idle &= time[row[open_]] - time[cleared] > TURNAROUND_NS
    idled = open_[idle]
    since[idled] = cleared[idle]
    drained[idled] = True
    mine = (since >= 0) & drained & (timeline.exchange[since] == timeline.exchange[row])
    row, since, wrote, told = row[mine], since[mine], wrote[mine], told[mine]
    return Claims.of(cause, timeline.exchange[row], time[since], time[wrote], observed=told, evidence=wrote)


def _cleared(timeline: Timeline, received: Bools, rows: Ints) -> Ints:
    """For each of ``rows`` the last of ``received`` before it that acknowledged anything new, else -1."""
    if not len(rows):
        return rows
    acked = running_max(timeline.segments["flow"], timeline.ack64, where=received, inclusive=False)
    return timeline.previous(received & (timeline.ack64 > acked), rows)
