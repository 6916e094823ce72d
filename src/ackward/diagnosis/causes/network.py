"""``network``: bytes were on their way.

With both hosts watched this is measured segment by segment. From one end it is one smallest round trip around
each wait,
and nothing more: what the path adds beyond its best is not told apart from the peer's work.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.segmented import Ints, running_max
from ackward.model.causes import Cause
from ackward.model.segments import Kind, Vantage


def claims(waits: Waits) -> list[Claims]:
    """Transits where both ends were watched, half round trips elsewhere."""
    timeline = waits.timeline
    return [_transits(timeline), *_halves(timeline)]


def arrivals(timeline: Timeline) -> tuple[Ints, Ints]:
    """Rows of fresh data as they left one watched end, and the rows of the other end by which all of it had arrived."""
    segments = timeline.segments
    if len(timeline.vantages) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    lane = segments["flow"].astype(np.int64) * 2 + segments["to_server"]
    data = segments["bytes"] > 0
    received = np.flatnonzero(data & (segments["kind"] == Kind.RECEIVED))
    received = received[np.argsort(lane[received], kind="stable")]
    sent = np.flatnonzero(timeline.fresh & (segments["kind"] == Kind.SENT))
    if not len(received) or not len(sent):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    reached = running_max(lane[received], timeline.end64[received])
    # 42 bits of bytes (4 TB) and 21 of lanes: one key that orders by lane, then by what has arrived.
    key = lane[received] * (1 << 42) + reached
    place = np.searchsorted(key, lane[sent] * (1 << 42) + timeline.end64[sent])
    safe = np.minimum(place, len(received) - 1)
    found = (place < len(received)) & (lane[received[safe]] == lane[sent])
    return sent[found], received[safe[found]]


def _transits(timeline: Timeline) -> Claims:
    sent, received = arrivals(timeline)
    return Claims.of(
        Cause.NETWORK,
        timeline.exchange[sent],
        timeline.time[sent],
        timeline.time[received],
        observed=True,
        evidence=sent,
    )


def _halves(timeline: Timeline) -> list[Claims]:
    segments, time, exchange = timeline.segments, timeline.time, timeline.exchange
    whole = np.arange(timeline.count)
    remote = whole[timeline.estimated]
    half = timeline.min_rtt[remote] // 2
    start, end = timeline.start[remote], timeline.end[remote]
    edges = [
        Claims.of(Cause.NETWORK, remote, start, start + half, observed=False),
        Claims.of(Cause.NETWORK, remote, end - half, end, observed=False),
    ]
    # Between our last request byte and the answer: half a round trip each way; back-to-back arrivals: all of it.
    here = timeline.at(Vantage.CLIENT)
    row = np.flatnonzero(timeline.fresh & ~segments["to_server"] & here & (exchange >= 0))
    row = row[~timeline.has_server[exchange[row]]]
    before = timeline.previous(timeline.fresh & here, row)
    row, before = row[before >= 0], before[before >= 0]
    half = timeline.min_rtt[exchange[row]] // 2
    close = time[row] - time[before] <= 2 * half
    out = np.where(close, time[row], time[before] + half)
    back = np.where(close, time[before], time[row] - half)
    return [
        *edges,
        Claims.of(Cause.NETWORK, exchange[row], time[before], out, observed=False, evidence=before),
        Claims.of(Cause.NETWORK, exchange[row], back, time[row], observed=False, evidence=row),
    ]
