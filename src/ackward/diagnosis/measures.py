"""What other tools count too, per flow: data sent again, the handshake's round trip, how soon data was acknowledged.

Counted in rows, which are packets: what offload merged was sent, and is sent again, as one. A direction is counted
where its sender was watched, else where it arrived: never twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.columns import Entries
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.segmented import NEVER, Bools, Ints, in_order, running_max, starts
from ackward.model.segments import Flag, Kind, Vantage


@dataclass(frozen=True)
class Measures(Entries):
    """One entry a flow. Times in nanoseconds, -1 where nothing was seen that tells them.

    ``retransmissions`` are segments that brought what had passed before: data, a SYN or a FIN. ``rtt`` is the time from
    the SYN that was answered until the client confirmed the answer, the same wherever it was seen. ``ack_rtt`` is the
    median time from data that left the watched end (either, if both were watched) until the ACK up to its last byte.
    """

    retransmissions: Ints
    rtt: Ints
    ack_rtt: Ints


def measured(timeline: Timeline, flows: int) -> Measures:
    """The measures of ``flows`` flows, numbered from 0, from their rows."""
    flow = timeline.segments["flow"]
    again = sent_again(timeline)
    data, ack = acknowledged(timeline, again)
    return Measures(
        np.bincount(flow[again], minlength=flows),
        _handshakes(timeline, flows),
        _medians(flow[data].astype(np.int64), timeline.time[ack] - timeline.time[data], flows),
    )


def _is_segment(timeline: Timeline) -> Bools:
    kind = timeline.segments["kind"]
    found: Bools = (kind == Kind.SENT) | (kind == Kind.RECEIVED) | (kind == Kind.PASSED)
    return found


def sent_again(timeline: Timeline) -> Bools:
    """Per row whether it brought what had passed before; a keep-alive (RFC 9293 section 3.8.4) brings nothing.

    What fills a hole counts too, though it may merely have been reordered.
    """
    segments = timeline.segments
    flags = segments["tcp_flags"]
    syn, fin = flags & Flag.SYN > 0, flags & Flag.FIN > 0
    size = segments["bytes"].astype(np.int64) + syn + fin
    taken = _is_segment(timeline) & (size > 0) & (flags & Flag.RST == 0)
    from_sender = taken & (segments["kind"] != Kind.RECEIVED)
    lane = segments["flow"].astype(np.int64) * 2 + segments["to_server"]
    watched = np.zeros(int(lane.max()) + 1 if len(lane) else 0, np.bool_)
    watched[lane[from_sender]] = True
    counted = from_sender | (taken & ~watched[lane])
    again = np.zeros(len(segments), np.bool_)
    for forth in (segments["to_server"], ~segments["to_server"]):
        rows = np.flatnonzero(counted & forth)
        seq, end = timeline.seq64[rows], timeline.seq64[rows] + size[rows]
        edge = running_max(segments["flow"][rows], end, inclusive=False)
        keep_alive = (
            (segments["bytes"][rows] <= 1) & (size[rows] == segments["bytes"][rows]) & (seq == edge - 1)
        )
        again[rows] = (seq < edge) & (edge > NEVER) & ~keep_alive
    return again


def acknowledged(timeline: Timeline, again: Bools) -> tuple[Ints, Ints]:
    """Rows of data that left a watched end, and for each that of the ACK which first reached exactly its last byte.

    Data that was sent ``again`` is left out: its ACK may be for either (Karn; RFC 6298 section 3).
    """
    segments = timeline.segments
    kind = segments["kind"]
    data = (kind == Kind.SENT) & (segments["bytes"] > 0)
    back = (kind == Kind.RECEIVED) & (segments["tcp_flags"] & Flag.ACK > 0)
    rows = np.flatnonzero(data | back)
    # One group for each end: what it sent and what it received.
    place = segments["flow"][rows].astype(np.int64) * 2 + (segments["vantage"][rows] == Vantage.SERVER)
    if len(timeline.vantages) > 1:
        order = np.argsort(place, kind="stable")
        rows, place = rows[order], place[order]
    asks = data[rows]
    number = np.where(asks, timeline.end64[rows], timeline.ack64[rows])
    fresh = ~asks & (number > running_max(place, number, where=~asks, inclusive=False))
    again = again[rows]
    # The sends and the first ACK of one number stand together, in the order in which they passed.
    chosen = np.flatnonzero(asks | fresh)
    chosen = chosen[np.argsort(in_order(place[chosen], number[chosen]), kind="stable")]
    same = ~starts(place[chosen])
    same[1:] &= np.diff(number[chosen]) == 0
    pair = np.flatnonzero(same & fresh[chosen])
    sent, ack = chosen[pair - 1], chosen[pair]
    # Bytes in the middle may have been sent again under other borders.
    clear = ~again[sent] & (running_max(place, number, where=again, at=ack) < number[sent])
    return rows[sent[clear]], rows[ack[clear]]


def _handshakes(timeline: Timeline, flows: int) -> Ints:
    """Per flow from the last SYN before the SYN-ACK to the first ACK after it, both as they passed one place."""
    segments, time = timeline.segments, timeline.time
    found = np.full(flows, -1, np.int64)
    flags, to_server = segments["tcp_flags"], segments["to_server"]
    seen = _is_segment(timeline)
    syn = seen & to_server & (flags & (Flag.SYN | Flag.ACK | Flag.RST) == Flag.SYN)
    answer = seen & ~to_server & (flags & (Flag.SYN | Flag.ACK) == Flag.SYN | Flag.ACK)
    confirmed = seen & to_server & (flags & (Flag.SYN | Flag.ACK | Flag.RST) == Flag.ACK)
    for vantage in (Vantage.WIRE, Vantage.SERVER, Vantage.CLIENT):
        here = segments["vantage"] == vantage
        if not (syn & here).any():
            continue
        last = np.flatnonzero(confirmed & here)
        answered = timeline.previous(answer & here, last)
        last, answered = last[answered >= 0], answered[answered >= 0]
        asked = timeline.previous(syn & here, answered)
        last, asked = last[asked >= 0], asked[asked >= 0]
        first = starts(segments["flow"][last])
        last, asked = last[first], asked[first]
        found[segments["flow"][last]] = time[last] - time[asked]
    return found


def _medians(of: Ints, values: Ints, count: int) -> Ints:
    """Per group the middle value, the lower one of two; -1 without any."""
    order = np.argsort(in_order(of, values))
    sizes = np.bincount(of, minlength=count)
    begins = np.cumsum(sizes) - sizes
    middle = begins + (np.maximum(sizes, 1) - 1) // 2
    medians = np.full(count, -1, np.int64)
    some = sizes > 0
    medians[some] = values[order[middle[some]]]
    return medians
