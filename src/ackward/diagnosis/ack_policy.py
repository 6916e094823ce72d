"""How a peer acknowledges, estimated from its ACKs: after how many segments, after how long.

An ACK that leaves as its newest segment arrives was forced by a count; one that leaves later, by a timer. Linux
forces one for each second full segment (``__tcp_ack_snd_check()``), Onload one for each EF_DYNAMIC_ACK_THRESH
segments (16 unless told otherwise) or EF_DELACK_THRESH. ACKs that carry data, tell of duplicates or holes, or come
after something was sent again say nothing about either rule.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.holds import DELAY_FLOOR_NS
from ackward.diagnosis.probing import smallest_round_trip
from ackward.diagnosis.segmented import NEVER, Bools, Ints, running_max
from ackward.model.segments import Flag, Kind, Vantage

#: EF_DYNAMIC_ACK_THRESH's default (Onload user guide).
ONLOAD_THRESHOLD = 16
#: So many segments and more that one ACK takes together are more than RFC 9293 3.8.6.3 allows.
_HELD_SEGMENTS = 3
_SURE_ACKS, _SURE_SHARE = 5, 0.8
#: Segments that reach the stack together are counted together: a forced ACK may take this share of the threshold more.
_OVERSHOOT = 8


class Likeness(enum.StrEnum):
    """How sure it is that this is Onload's way to acknowledge."""

    SURE = "almost certainly"
    LIKELY = "probably"
    POSSIBLE = "possibly"


@dataclass(frozen=True)
class AckPolicy:
    """What a peer's ACKs show.

    ``threshold`` is the count at which one is forced, in segments: ``counted`` of ``forced`` ACKs for three segments
    and more came at it, or just above; None if none was forced. ``timer_ns`` is the median time from the first
    segment that an ACK takes to the ACK where nothing forced it, one round trip taken off where the sender's end was
    watched, ``late`` how many such ACKs there were, ``most_held`` the most segments that waited so.
    """

    threshold: int | None
    counted: int
    forced: int
    timer_ns: int | None
    late: int
    most_held: int

    @property
    def holds(self) -> bool:
        """Whether it holds more than TCP allows."""
        return self.threshold is not None or self.most_held >= _HELD_SEGMENTS

    @property
    def likeness(self) -> Likeness | None:
        """To Onload's default, None if it does not hold ACKs: links and network cards that aggregate thin ACKs too."""
        if not self.holds:
            return None
        if self.threshold is None:
            return Likeness.POSSIBLE
        steady = self.counted >= max(_SURE_ACKS, _SURE_SHARE * self.forced)
        if self.threshold != ONLOAD_THRESHOLD or not steady or self.most_held >= self.threshold:
            return Likeness.POSSIBLE
        return Likeness.SURE if self.late else Likeness.LIKELY


@dataclass(frozen=True)
class AckSamples:
    """ACKs that one of the two rules sent.

    ``segments`` that each took, whether one was ``forced``, and its ``age``: the nanoseconds since its first segment.
    """

    segments: Ints
    forced: Bools
    age: Ints


def ack_samples(timeline: Timeline, receiver: Vantage) -> AckSamples:
    """The ACKs of one end, from the sender's end where it was watched, else from its own."""
    sender = Vantage(1 - receiver)
    near = bool((timeline.at(sender) & (timeline.segments["kind"] == Kind.SENT)).any())
    vantage, data_kind, ack_kind = (
        (sender, Kind.SENT, Kind.RECEIVED) if near else (receiver, Kind.RECEIVED, Kind.SENT)
    )
    segments, flow, time = timeline.segments, timeline.segments["flow"].astype(np.int64), timeline.time
    here = timeline.at(vantage)
    data = here & (segments["kind"] == data_kind) & (segments["bytes"] > 0)
    fresh = data & timeline.fresh
    back = here & (segments["kind"] == ack_kind)
    acked = running_max(flow, timeline.ack64, where=back, inclusive=False)
    control = segments["tcp_flags"] & (Flag.SYN | Flag.FIN | Flag.RST) > 0
    pure = back & (segments["bytes"] == 0) & ~control & (segments["sack_left"] == segments["sack_right"])
    ack = np.flatnonzero(pure & (timeline.ack64 > acked) & (acked > NEVER))
    again = timeline.previous(data & ~timeline.fresh, ack)
    ack = ack[again <= timeline.previous(back & (timeline.ack64 > acked), ack)]

    rows = np.flatnonzero(fresh)
    of = flow[rows]
    count = np.cumsum(segments["segments"][rows].astype(np.int64))
    number, forced, age = [], [], []
    rtt = smallest_round_trip(timeline, flow) if near else np.zeros(len(flow), np.int64)
    for row in ack.tolist():
        begin, beyond = np.searchsorted(of, (flow[row], flow[row] + 1))
        ends = timeline.end64[rows[begin:beyond]]
        first = begin + np.searchsorted(ends, acked[row], side="right")
        last = begin + np.searchsorted(ends, timeline.ack64[row])
        if last >= beyond or first > last:
            continue
        taken = _covered(timeline, rows, count, last, int(timeline.ack64[row]))
        number.append(taken - _covered(timeline, rows, count, first, int(acked[row])))
        slack = max(DELAY_FLOOR_NS, int(rtt[row]) // 4)
        forced.append(time[row] - time[rows[last]] - rtt[row] < slack)
        age.append(time[row] - time[rows[first]] - rtt[row])
    return AckSamples(np.array(number, np.int64), np.array(forced, bool), np.array(age, np.int64))


def _covered(timeline: Timeline, rows: Ints, count: Ints, place: int, edge: int) -> int:
    """How many segments lie before ``edge``, which is in the packet at ``place``; offload makes one of several."""
    row = rows[place]
    size, several = int(timeline.segments["bytes"][row]), int(timeline.segments["segments"][row])
    inside = min(max(edge - int(timeline.seq64[row]), 0), size)
    return int(count[place]) - several + -(-inside * several // size)


def ack_policy(samples: AckSamples) -> AckPolicy:
    """The two rules behind some ACKs."""
    counts = samples.segments[samples.forced & (samples.segments >= _HELD_SEGMENTS)]
    late = ~samples.forced & (samples.segments >= 1)
    threshold, counted = None, 0
    if len(counts):
        values, times = np.unique(counts, return_counts=True)
        threshold = int(values[times.argmax()])
        counted = int(((counts >= threshold) & (counts <= threshold + threshold // _OVERSHOOT)).sum())
        if counted * 2 < len(counts):
            threshold, counted = None, 0
    return AckPolicy(
        threshold,
        counted,
        len(counts),
        int(np.median(samples.age[late])) if late.any() else None,
        int(late.sum()),
        int(samples.segments[late].max()) if late.any() else 0,
    )
