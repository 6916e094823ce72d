"""Data sent again, and what made the sender do it.

From the sender's end a retransmission is a segment whose bytes had all left before. From the receiver's end a repaired
loss is a segment that fills a hole which later data had left open. What triggered it is told by what came before:
SACKs or duplicate ACKs (fast retransmit, RFC 5681 and RFC 8985), silence for a retransmission timeout (RFC 6298), or
silence for about two round trips and then the very last segment again (tail-loss probe, RFC 8985 section 7).

What was sent again needlessly repaired nothing: a D-SACK says that the original had arrived (RFC 2883 section 4). If
the sender had nothing more to send behind it, nobody waited for it either.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.columns import Entries
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.segmented import NEVER, Bools, Ints, running_max
from ackward.diagnosis.windows import edge as window_edge
from ackward.model.segments import Flag, Kind, Vantage

#: Linux's smallest retransmission timeout (TCP_RTO_MIN), less one tick of HZ=100 for timers that start between ticks.
RTO_FLOOR_NS = 190_000_000
DUPLICATE_ACKS = 3  # RFC 5681 section 3.2


class Trigger(enum.IntEnum):
    """Why a segment was sent again."""

    TIMEOUT = 0
    PROBE = 1
    FAST = 2


@dataclass(frozen=True)
class Losses(Entries):
    """One entry a repair. ``since`` is the moment from which the loss cost time, ``row`` the segment sent again."""

    row: Ints
    since: Ints
    trigger: Ints
    vantage: Ints
    exchange: Ints


def losses(timeline: Timeline) -> Losses:
    """From both ends: sent again here, or repaired holes in what arrives here."""
    parts = [part for end in timeline.vantages for part in (_resent(timeline, end), _repaired(timeline, end))]
    return Losses.joined(parts)


def _resent(timeline: Timeline, vantage: Vantage) -> Losses:
    """Retransmissions that left from this end, SYNs included."""
    segments, flow, time = timeline.segments, timeline.segments["flow"].astype(np.int64), timeline.time
    here = timeline.at(vantage)
    sent = here & (segments["kind"] == Kind.SENT)
    syn = sent & (segments["tcp_flags"] & Flag.SYN > 0)
    data = sent & (segments["bytes"] > 0)
    row = np.flatnonzero(data & ~timeline.fresh)
    edge = running_max(flow, timeline.end64, where=data, inclusive=False, at=row)
    keepalive = (segments["bytes"][row] <= 1) & (timeline.seq64[row] == edge - 1)
    opening = np.flatnonzero(syn)
    again = np.zeros(len(segments), bool)
    again[row[~keepalive]] = True
    again[opening[timeline.previous(syn, opening) >= 0]] = True
    row = np.flatnonzero(again & (timeline.exchange >= 0))
    if not len(row):
        return Losses(row, row, row, row, row)

    original = _original(timeline, data | syn, row)
    row, original = row[original >= 0], original[original >= 0]
    edge = running_max(flow, timeline.end64, where=data, inclusive=False, at=row)
    received = here & (segments["kind"] == Kind.RECEIVED)
    acked = timeline.acked(vantage)
    pure = (
        received & (segments["bytes"] == 0) & (segments["tcp_flags"] & (Flag.SYN | Flag.FIN | Flag.RST) == 0)
    )
    hint = pure & (segments["sack_right"] != segments["sack_left"])
    duplicate = pure & (timeline.ack64 == acked)
    last = timeline.end64[row] >= np.where(syn[row], timeline.end64[row], edge)
    hints = _count_between(hint, original, row)
    duplicates = _count_between(duplicate, original, row)
    waited = time[row] - time[original]
    trigger = np.full(len(row), Trigger.FAST, np.int64)
    silent = (hints == 0) & (duplicates < DUPLICATE_ACKS)
    trigger[silent & last] = Trigger.PROBE
    trigger[(silent & (waited >= RTO_FLOOR_NS)) | syn[row]] = Trigger.TIMEOUT
    trigger = _inherited(trigger, original, timeline.previous(again, row))
    # With the receiver's window used up, what is sent again asks whether it has opened: that is no loss.
    asks = window_edge(timeline, received, row) - edge < segments["mss"][row]
    asks &= ~syn[row]
    found = Losses(
        row, time[original], trigger, np.full(len(row), int(vantage), np.int64), timeline.exchange[row]
    )
    return found.chosen(~asks & ~_needless(timeline, row, data & timeline.fresh, received))


def _needless(timeline: Timeline, row: Ints, fresh: Bools, received: Bools) -> Bools:
    """Which of the rows sent again, as the last of their exchange, what the next D-SACK says had arrived already.

    Where more was to be sent the sender may have waited for the ACK alone, and its timer ended that wait.
    """
    segments = timeline.segments

    def beyond_ack(edge: str, rows: Ints) -> Ints:
        """How far a block's edge lies after the acknowledgement number, negative if before (RFC 9293 section 3.4)."""
        far: Ints = (segments[edge][rows] - segments["ack"][rows]).astype(np.int32).astype(np.int64)
        return far

    told = timeline.following(received & segments["dsack"], row)
    left, right = (timeline.ack64[told] + beyond_ack(edge, told) for edge in ("sack_left", "sack_right"))
    covered = (told >= 0) & (left <= timeline.seq64[row]) & (right >= timeline.end64[row])
    more = timeline.following(fresh, row)
    last = (more < 0) | (timeline.exchange[more] != timeline.exchange[row])
    needless: Bools = covered & last
    return needless


def _inherited(trigger: Ints, original: Ints, before: Ints) -> Ints:
    """What is sent again after something else was, belongs to the recovery that this began."""
    if not len(trigger):
        return trigger
    follows = before >= original
    leader = np.maximum.accumulate(np.where(follows, -1, np.arange(len(trigger))))
    return np.where(follows & (leader >= 0), trigger[np.maximum(leader, 0)], trigger)


def _original(timeline: Timeline, sends: Bools, rows: Ints) -> Ints:
    """The latest earlier sending of the same first byte, else of anything at all by that end in that exchange."""
    if not len(rows):
        return rows
    segments = timeline.segments
    place = np.flatnonzero(sends)
    lane = (segments["flow"][place].astype(np.int64) * 2 + segments["vantage"][place]) * 2 + segments[
        "to_server"
    ][place]
    order = np.lexsort((place, timeline.seq64[place], lane))
    same = np.full(len(segments), -1, np.int64)
    ordered = place[order]
    alike = (np.diff(lane[order]) == 0) & (np.diff(timeline.seq64[ordered]) == 0)
    same[ordered[1:][alike]] = ordered[:-1][alike]
    found = same[rows]
    fallback = timeline.previous(sends, rows)
    inside = (fallback >= 0) & (timeline.exchange[np.maximum(fallback, 0)] == timeline.exchange[rows])
    return np.where(found >= 0, found, np.where(inside, fallback, -1))


def _count_between(marked: Bools, first: Ints, last: Ints) -> Ints:
    """How many marked rows lie strictly between two rows of one flow."""
    total = np.cumsum(marked)
    counts: Ints = total[last] - marked[last] - total[first]
    return counts


def _repaired(timeline: Timeline, vantage: Vantage) -> Losses:
    """Holes in what arrives at this end, where the other end was not watched itself."""
    segments, flow, time = timeline.segments, timeline.segments["flow"].astype(np.int64), timeline.time
    here = timeline.at(vantage)
    arrived = here & (segments["kind"] == Kind.RECEIVED) & (segments["bytes"] > 0)
    ahead, row = np.zeros(len(segments), bool), np.flatnonzero(arrived)
    edge = running_max(flow, timeline.end64, where=arrived, inclusive=False, at=row)
    ahead[row] = (timeline.seq64[row] > edge) & (edge > NEVER)
    sender_watched = timeline.has_server if vantage == Vantage.CLIENT else timeline.has_client
    row = np.flatnonzero(arrived & ~timeline.fresh & (timeline.exchange >= 0))
    row = row[~sender_watched[timeline.exchange[row]]]
    probes = _probes(timeline, arrived, ahead & (timeline.exchange >= 0), sender_watched, vantage)
    # A fill begins where our own ACKs stand; a mere duplicate lies below them.
    sent = here & (segments["kind"] == Kind.SENT)
    acked = running_max(flow, timeline.ack64, where=sent, inclusive=False, at=row)
    opened = timeline.previous(ahead, row)
    fills = (opened >= 0) & (timeline.seq64[row] <= acked) & (timeline.end64[row] > acked)
    row, opened = row[fills], opened[fills]
    waited = time[row] - time[opened]
    # Reordering repairs itself within a fraction of a round trip; a loss needs a whole one to be heard of.
    exchange = timeline.exchange[row]
    real = waited >= timeline.min_rtt[exchange] // 2
    row, opened, waited, exchange = row[real], opened[real], waited[real], exchange[real]
    trigger = np.where(waited >= RTO_FLOOR_NS + timeline.min_rtt[exchange], Trigger.TIMEOUT, Trigger.FAST)
    fills_found = Losses(row, time[opened], trigger, np.full(len(row), 1 - int(vantage), np.int64), exchange)
    return Losses.joined((fills_found, probes))


def _probes(
    timeline: Timeline, arrived: Bools, ahead: Bools, sender_watched: Bools, vantage: Vantage
) -> Losses:
    """Tail-loss probes as the receiver sees them: silence, then the very last segment, with a hole before it.

    A timeout would have repeated the first missing segment, and a program that had paused would have sent more.
    """
    time = timeline.time
    row = np.flatnonzero(ahead)
    row = row[~sender_watched[timeline.exchange[row]]]
    before = timeline.previous(arrived, row)
    after = timeline.following(arrived, row)
    rtt = timeline.min_rtt[timeline.exchange[row]]
    alone = (after < 0) | (timeline.seq64[np.maximum(after, 0)] < timeline.seq64[row])
    silent = (before >= 0) & (time[row] - time[np.maximum(before, 0)] > rtt + rtt // 4)
    row, before = row[alone & silent], before[alone & silent]
    trigger = np.full(len(row), Trigger.PROBE, np.int64)
    return Losses(
        row, time[before], trigger, np.full(len(row), 1 - int(vantage), np.int64), timeline.exchange[row]
    )
