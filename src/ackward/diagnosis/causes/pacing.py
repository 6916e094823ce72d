"""``pacing``: the sender's kernel spreads full segments evenly over time, with nothing else to wait for.

SO_MAX_PACING_RATE, the fq qdisc, BBR (``tcp_update_pacing_rate``). After each burst the kernel waits for as long as the
burst takes at its rate (``tcp_update_skb_after_send``), whatever comes next. Packets show it as many gaps that no ACK
ends, each as long as the burst before it was large. A program that writes at such a rate looks the same, so it takes
many of them, and even ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ackward.diagnosis.bursts import bytes_before
from ackward.diagnosis.claims import Claims
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.segmented import Bools, Ints, group_ends, group_starts
from ackward.model.causes import Cause
from ackward.model.segments import Kind, Vantage

LEAST_GAP_NS = 200_000  # below, segments of one burst merely follow one another
LEAST_GAPS = 3
#: The middle half of the gaps, in time per byte, lies within this share of their median.
EVEN = 0.2
#: Linux paces so many segments at once or more (net.ipv4.tcp_min_tso_segs); a slow link spreads each of them.
LEAST_BURST = 2

Floats = NDArray[np.float64]


def claims(waits: Waits) -> list[Claims]:
    """Gaps between bursts of full segments, at the sender's end or, less plainly, at the receiver's."""
    return [
        _paced(waits.timeline, vantage, kind)
        for vantage in waits.timeline.vantages
        for kind in (Kind.SENT, Kind.RECEIVED)
    ]


def _paced(timeline: Timeline, vantage: Vantage, kind: Kind) -> Claims:
    segments, time = timeline.segments, timeline.time
    here = timeline.at(vantage) & (timeline.exchange >= 0)
    if kind == Kind.RECEIVED:
        here &= ~segments["has_state"]  # a live view guesses nothing of a program that it cannot see
    data = here & (segments["kind"] == kind) & timeline.fresh
    row = np.flatnonzero(data)
    if kind == Kind.RECEIVED:
        watched = timeline.has_server if vantage == Vantage.CLIENT else timeline.has_client
        row = row[~watched[timeline.exchange[row]]]
    before = timeline.previous(data, row)
    same = (before >= 0) & (timeline.exchange[np.maximum(before, 0)] == timeline.exchange[row])
    gap = np.where(same, time[row] - time[np.maximum(before, 0)], 0)
    begins = ~same | (gap >= LEAST_GAP_NS)
    size = bytes_before(timeline, row, begins)

    bursts = same & begins & ~timeline.not_full[before] & (size > 0)
    row, before, gap, size = row[bursts], before[bursts], gap[bursts], size[bursts]

    # No ACK let it go: none came just before; at the receiver, it took longer than an ACK's way and back.
    other = timeline.previous(here & (segments["kind"] != kind), row)
    age = time[row] - time[np.maximum(other, 0)]
    rtt = timeline.min_rtt[timeline.exchange[row]]
    if kind == Kind.SENT:
        alone = (other < before) | (age > LEAST_GAP_NS)
        # Where the sender's kernel tells that nothing was left to send, the program was slow.
        written = segments["seq"][before] + segments["bytes"][before]
        alone &= (segments["write_seq"][before] != written) | ~segments["has_state"][before]
    else:
        alone = (gap > rtt + rtt // 2) & (size >= LEAST_BURST * segments["mss"][row].astype(np.int64))
    row, before, gap, size = row[alone], before[alone], gap[alone], size[alone]
    even = _even(timeline.exchange[row], gap / size)
    row, before = row[even], before[even]
    return Claims.of(
        Cause.PACING,
        timeline.exchange[row],
        time[before],
        time[row],
        observed=False,
        evidence=row,
        holding=int(vantage) if kind == Kind.SENT else 1 - int(vantage),
    )


def _even(exchange: Ints, pace: Floats) -> Bools:
    """Entries of exchanges that have many of them, all alike. ``exchange`` is in order."""
    order = np.lexsort((pace, exchange))
    first = group_starts(exchange)
    size = group_ends(exchange) - first + 1

    def quantile(share: float) -> Floats:
        """Of each entry's exchange, between the two nearest entries as np.quantile does."""
        place = share * (size - 1)
        low = np.floor(place).astype(np.int64)
        below, above = pace[order[first + low]], pace[order[first + np.minimum(low + 1, size - 1)]]
        between: Floats = below + (above - below) * (place - low)
        return between

    spread = quantile(0.75) - quantile(0.25)
    even: Bools = (size >= LEAST_GAPS) & (spread <= EVEN * quantile(0.5))
    return even
