"""Flights: bursts of full segments, each let go by the ACKs of the one before.

Between two flights the sender is out of congestion window and waits, a round trip at most. At the sender's end the
segment after the wait leaves as an ACK arrives; at the receiver's end it arrives one round trip after the first
ACK of the flight before. A flight that is larger than the one before is slow start; one that is not is a window that is
full. RFC 5681, RFC 6928.

A slow link makes a sender wait for ACKs too, and a larger window would only lengthen the queue before it. So at the
sender's end what an ACK took beyond the smallest round trip is no wait for the window; at the receiver's end segments
that come one by one, as a slow link lets them through, are no flights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.bursts import bytes_before
from ackward.diagnosis.columns import Entries
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.probes import of_new_data
from ackward.diagnosis.segmented import (
    NEVER,
    Bools,
    Ints,
    group_starts,
    in_order,
    previous_index,
    running_max,
)
from ackward.model.segments import Kind, Vantage

#: A wait counts from this share of a round trip, and from this long: below, segments of one flight merely spread.
LEAST_SHARE = 4
LEAST_NS = 500_000
LEAST_FLIGHT = 2  # segments
GROWTH = 1.2  # slow start doubles, or grows by half with delayed ACKs (RFC 3465); a full window does not
AFTER_PAUSE = (
    2  # slow start leaves a window so many times as large as the largest flight (tcp_is_cwnd_limited())
)
IDLE_NS = 200_000_000  # no retransmission timeout of Linux is shorter (tcp_cwnd_restart counts in RTOs)


@dataclass(frozen=True)
class Flights(Entries):
    """One entry a wait between flights, in nanoseconds.

    ``again``: the flow had had a larger window before a pause.
    """

    row: Ints
    since: Ints
    until: Ints
    growing: Bools
    again: Bools
    vantage: Ints
    exchange: Ints


def flights(timeline: Timeline) -> Flights:
    """All waits between flights that packets show, for senders at either end."""
    parts = [
        _flights(timeline, vantage, kind)
        for vantage in timeline.vantages
        for kind in (Kind.SENT, Kind.RECEIVED)
    ]
    return Flights.joined(parts)


def _flights(timeline: Timeline, vantage: Vantage, kind: Kind) -> Flights:
    segments, flow, time = timeline.segments, timeline.segments["flow"].astype(np.int64), timeline.time
    here = timeline.at(vantage)
    if kind == Kind.SENT:
        here &= ~segments["has_state"]  # that kernel told what held it
    data = here & (segments["kind"] == kind) & timeline.fresh & (timeline.exchange >= 0)
    back = here & (segments["kind"] != kind) & ~timeline.fresh
    watched = timeline.has_server if vantage == Vantage.CLIENT else timeline.has_client
    acked = running_max(flow, timeline.ack64, where=back, inclusive=False)
    advancing = back & (timeline.ack64 > acked)
    if kind == Kind.SENT:
        data &= ~of_new_data(timeline, data, advancing)
    row = np.flatnonzero(data)
    if kind == Kind.RECEIVED:
        row = row[~watched[timeline.exchange[row]]]
    sent = row
    exchange, before = timeline.exchange[row], timeline.previous(data, row)
    pair = (before >= 0) & (timeline.exchange[before] == exchange)
    least = np.maximum(LEAST_NS, timeline.min_rtt[exchange] // LEAST_SHARE)
    gap = np.where(pair, time[row] - time[before], 0)
    burst = bytes_before(timeline, row, ~pair | (gap >= least)) if kind == Kind.RECEIVED else gap
    paused = pair & ~timeline.not_full[before] & (gap >= least)
    row, before, exchange, least, gap, burst = (
        column[paused] for column in (row, before, exchange, least, gap, burst)
    )
    rtt, ack = timeline.min_rtt[exchange], timeline.previous(advancing, row)
    queued = np.zeros(len(row), np.int64)
    if kind == Kind.SENT:
        # Something was still in flight before the ACK came, and the segment left with it.
        clock = (ack > before) & (time[row] - time[ack] <= LEAST_NS)
        clock &= acked[ack] < timeline.end64[before]
        clocked = np.flatnonzero(clock)
        queued[clocked] = np.maximum(_taken(timeline, sent, ack[clocked]) - rtt[clocked], 0)
    else:
        # The wait is what is left of a round trip after the flight has arrived.
        clock = (ack >= 0) & (gap <= rtt + rtt // LEAST_SHARE)
        clock &= burst >= LEAST_FLIGHT * segments["mss"][row].astype(np.int64)
    wait = clock & (gap - queued >= least)
    until = (time[row] - queued)[wait]
    row, before, exchange = row[wait], before[wait], exchange[wait]
    sender = vantage if kind == Kind.SENT else Vantage(1 - vantage)
    return _grown(timeline, row, before, until, exchange, data, sender)


def _taken(timeline: Timeline, data: Ints, ack: Ints) -> Ints:
    """What each ``ack`` took, in nanoseconds, since the last byte that it acknowledges had left in one of ``data``."""
    flow = timeline.segments["flow"].astype(np.int64)
    if not len(ack):
        return ack
    ends, edges = timeline.end64[data], timeline.ack64[ack]
    keys = in_order(np.concatenate((flow[data], flow[ack])), np.concatenate((ends, edges)))
    place = np.searchsorted(keys[: len(data)], keys[len(data) :])
    newest = data[np.minimum(place, len(data) - 1)]
    known = (place < len(data)) & (flow[newest] == flow[ack])
    return np.where(known, timeline.time[ack] - timeline.time[newest], 0)


def _grown(
    timeline: Timeline, row: Ints, before: Ints, until: Ints, exchange: Ints, data: Bools, sender: Vantage
) -> Flights:
    """Sizes of the flights between the waits: which still grew, and whether the flow had been further already."""
    flow, time = timeline.segments["flow"].astype(np.int64), timeline.time
    mine = flow[row]
    start = np.full(len(row), NEVER)
    begins = previous_index(group_starts(mine), np.ones(len(row), bool))
    chained = (begins >= 0) & (exchange[np.maximum(begins, 0)] == exchange)
    first = np.full(timeline.count, np.iinfo(np.int64).max)
    rows = np.flatnonzero(data)
    np.minimum.at(first, timeline.exchange[rows], timeline.seq64[rows])
    start = np.where(
        chained,
        timeline.seq64[row[np.maximum(begins, 0)]] if len(row) else start,
        first[exchange] if len(row) else start,
    )
    size = timeline.end64[before] - start
    previous = np.where(chained, size[np.maximum(begins, 0)] if len(row) else size, 0)
    growing = size > previous * GROWTH
    # The exchange began after a pause, and with less than the window that the flow had come to before.
    largest = np.zeros(timeline.count, np.int64)
    np.maximum.at(largest, exchange, size)
    earlier = np.maximum(running_max(timeline.flow_of, largest, inclusive=False, at=exchange), 0)
    pause = timeline.start[exchange] - _end_before(timeline, exchange)
    again = (pause >= IDLE_NS) & (AFTER_PAUSE * earlier > size)
    return Flights(
        row, time[before], until, growing, again, np.full(len(row), int(sender), np.int64), exchange
    )


def _end_before(timeline: Timeline, exchange: Ints) -> Ints:
    """When the flow's exchange before this one ended; its own start if there was none."""
    earlier = np.maximum(exchange - 1, 0)
    same = (exchange > 0) & (timeline.flow_of[earlier] == timeline.flow_of[exchange])
    ends: Ints = np.where(same, timeline.end[earlier], timeline.start[exchange])
    return ends
