"""``pacing``: the sender's kernel spreads full segments evenly over time, with nothing else to wait for.

SO_MAX_PACING_RATE, the fq qdisc, BBR (``tcp_update_pacing_rate``). Packets show it as many full segments at even
distances that no ACK lets go. A program that writes at even intervals looks the same, so it takes many of them, and
even ones.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.segmented import Ints
from ackward.model.causes import Cause
from ackward.model.segments import Kind, Vantage

LEAST_GAP_NS = 200_000  # below, segments of one burst merely follow one another
LEAST_GAPS = 3
#: The middle half of the gaps lies within this share of their median.
EVEN = 0.2


def claims(waits: Waits) -> list[Claims]:
    """Even gaps between full segments that no ACK ended, at the sender's end or, less plainly, at the receiver's."""
    timeline = waits.timeline
    segments, time = timeline.segments, timeline.time
    found = []
    for vantage in (Vantage.CLIENT, Vantage.SERVER):
        for kind in (Kind.SENT, Kind.RECEIVED):
            here = timeline.at(vantage) & ~segments["has_state"] & (timeline.exchange >= 0)
            data = here & (segments["kind"] == kind) & timeline.fresh
            row = np.flatnonzero(data & ~timeline.not_full)
            watched = timeline.has_server if vantage == Vantage.CLIENT else timeline.has_client
            if kind == Kind.RECEIVED:
                row = row[~watched[timeline.exchange[row]]]
            before = timeline.previous(data)[row]
            gap = time[row] - time[np.maximum(before, 0)]
            # No ACK let it go: none came just before; at the receiver, it took longer than an ACK's way and back.
            other = timeline.previous(here & (segments["kind"] != kind))[row]
            age = time[row] - time[np.maximum(other, 0)]
            rtt = timeline.min_rtt[timeline.exchange[row]]
            alone = (other < before) | (age > LEAST_GAP_NS) if kind == Kind.SENT else gap > rtt + rtt // 2
            same = (before >= 0) & (timeline.exchange[np.maximum(before, 0)] == timeline.exchange[row])
            keep = same & alone & ~timeline.not_full[np.maximum(before, 0)] & (gap >= LEAST_GAP_NS)
            row, before, gap = row[keep], before[keep], gap[keep]
            even = _even(timeline.exchange[row], gap)
            row, before = row[even], before[even]
            sender = int(vantage) if kind == Kind.SENT else 1 - int(vantage)
            found.append(
                Claims.of(
                    Cause.PACING,
                    timeline.exchange[row],
                    time[before],
                    time[row],
                    observed=False,
                    evidence=row,
                    holding=sender,
                )
            )
    return found


def _even(exchange: Ints, gap: Ints) -> Ints:
    """Indices of gaps in exchanges that have many of them, all alike."""
    chosen = []
    bounds = np.flatnonzero(np.diff(exchange)) + 1
    for indices in np.split(np.arange(len(exchange)), bounds):
        if len(indices) >= LEAST_GAPS:
            low, middle, high = np.quantile(gap[indices], [0.25, 0.5, 0.75])
            if high - low <= EVEN * middle:
                chosen.append(indices)
    return np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
