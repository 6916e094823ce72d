"""``pacing``: the sender's kernel spreads full segments evenly over time, with nothing else to wait for.

SO_MAX_PACING_RATE, the fq qdisc, BBR (``tcp_update_pacing_rate``). Packets show it as many full segments at even
distances that no ACK lets go. A program that writes at even intervals looks the same, so it takes many of them, and even ones.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.segmented import Ints
from ackward.model.causes import Cause
from ackward.model.segments import Kind, Vantage

LEAST_GAP_NS = 200_000  # below, segments of one burst merely follow one another
LEAST_GAPS = 16
#: The middle half of the gaps lies within this share of their median.
EVEN = 0.5


def claims(waits: Waits) -> list[Claims]:
    """From the sender's end: even gaps between full segments, while the window had room."""
    timeline = waits.timeline
    segments, time = timeline.segments, timeline.time
    found = []
    for vantage in (Vantage.CLIENT, Vantage.SERVER):
        here = timeline.at(vantage) & ~segments["has_state"] & (timeline.exchange >= 0)
        sent = here & (segments["kind"] == Kind.SENT) & timeline.fresh
        row = np.flatnonzero(sent & ~timeline.not_full)
        before = timeline.previous(sent)[row]
        heard = timeline.previous(here & (segments["kind"] == Kind.RECEIVED))[row]
        same = (before >= 0) & (timeline.exchange[np.maximum(before, 0)] == timeline.exchange[row])
        # An ACK just before the segment let it go; one long before did not.
        unprompted = (heard < before) | (time[row] - time[np.maximum(heard, 0)] > LEAST_GAP_NS)
        keep = same & unprompted & ~timeline.not_full[np.maximum(before, 0)]
        row, before = row[keep], before[keep]
        gap = time[row] - time[before]
        row, before, gap = row[gap >= LEAST_GAP_NS], before[gap >= LEAST_GAP_NS], gap[gap >= LEAST_GAP_NS]
        even = _even(timeline.exchange[row], gap)
        row, before = row[even], before[even]
        found.append(
            Claims.of(
                Cause.PACING,
                timeline.exchange[row],
                time[before],
                time[row],
                observed=False,
                evidence=row,
                holding=int(vantage),
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
