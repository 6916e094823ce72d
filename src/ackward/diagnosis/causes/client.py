"""``client``: the client's program had not written yet.

The client's kernel knows (:mod:`ackward.diagnosis.pauses`). From the server alone, a request that pauses after a
segment that was not full is put down to the client unless a stall explains it.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.pauses import program_pauses
from ackward.diagnosis.segmented import NEVER, Bools
from ackward.model.causes import Cause
from ackward.model.segments import Flag, Kind, Vantage


def claims(waits: Waits) -> list[Claims]:
    """Pauses of the client inside a request, and between the handshake and the first request byte."""
    timeline = waits.timeline
    segments, time, exchange = timeline.segments, timeline.time, timeline.exchange
    here = timeline.at(Vantage.SERVER) & (exchange >= 0)
    arrived = here & (segments["kind"] == Kind.RECEIVED) & timeline.fresh
    row = np.flatnonzero(arrived)
    row = row[~timeline.has_client[exchange[row]]]
    opened = here & ((segments["kind"] == Kind.ESTABLISHED) | _confirmed(timeline))
    before = timeline.previous(arrived | opened, row)
    row, before = row[before >= 0], before[before >= 0]
    # A full segment may have been stopped by a window; one that was not full was all there was.
    full = segments["bytes"][before] // np.maximum(segments["segments"][before], 1) >= np.maximum(
        segments["mss"][before], 1
    )
    paused = (exchange[before] == exchange[row]) & ~full
    row, before = row[paused], before[paused]
    felt = Claims.of(Cause.CLIENT, exchange[row], time[before], time[row], observed=False, evidence=row)
    return [program_pauses(waits, Vantage.CLIENT, Cause.CLIENT), felt]


def _confirmed(timeline: Timeline) -> Bools:
    """The first ACK of a flow at the server after its SYN-ACK: what ESTABLISHED is where the kernel was not asked."""
    segments = timeline.segments
    flags = segments["tcp_flags"]
    sent = timeline.at(Vantage.SERVER) & (segments["kind"] == Kind.SENT) & (flags & Flag.SYN > 0)
    first = (segments["kind"] == Kind.RECEIVED) & (segments["bytes"] == 0) & (flags & Flag.SYN == 0)
    first &= (timeline.acked(Vantage.SERVER) == NEVER) & (timeline.ack64 > NEVER)
    row = np.flatnonzero(first)
    found = np.zeros(len(segments), bool)
    found[row[timeline.previous(sent, row) >= 0]] = True
    return found
