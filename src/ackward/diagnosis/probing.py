"""Every tail-loss probe of some traffic, and whether it was needed (RFC 8985 section 7).

Laws
 - A probe leaves after silence: nothing sent, nothing acknowledged, for two round trips and more, and something in
   flight. It brings one new segment if the sender has one, else the very last one again (``tcp_send_loss_probe()``).
 - ``spurious`` needs proof that the segment which it repeats had arrived: the receiver's host saw it, a D-SACK said so
   (RFC 2883), the ACK came sooner than any answer to the probe could, or a second ACK told nothing new.
 - ``useful`` needs a reason to believe that it had not. Where nothing tells, it is ``undecided``: a receiver that
   delays or holds its ACKs and sends no D-SACK answers both alike.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.columns import Entries
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.probes import PROBE_SLACK_NS
from ackward.diagnosis.segmented import NEVER, Bools, Ints, running_max
from ackward.diagnosis.windows import edge as window_edge
from ackward.model.segments import Flag, Kind, Vantage
from ackward.model.tcp_constants import DELACK_MAX_NS, RTO_MIN_NS

#: From here on silence is more likely a retransmission timeout's, if one segment is in flight. One tick of HZ=100 less.
TIMEOUT_FLOOR_NS = RTO_MIN_NS - 10_000_000
#: icsk_ca_state in which a probe may be armed (tcp_schedule_loss_probe()): TCP_CA_Open, TCP_CA_CWR. A timeout sends in
#: TCP_CA_Loss, a fast retransmission in TCP_CA_Recovery (include/uapi/linux/tcp.h).
_PROBING_STATES = (0, 2)
#: RFC 5681 section 4.2: of more than this many full segments some would have been acknowledged at once.
_ACKED_AT_ONCE = 2
#: An ACK this much earlier than the smallest round trip cannot be for the probe, whatever clocks and captures add.
_TOO_SOON = 0.9


def probe_timeout_ns(srtt_ns: int, in_flight: int, rto_left_ns: int, rto_min_ns: int = RTO_MIN_NS) -> int:
    """How long ``tcp_schedule_loss_probe()`` waits, in nanoseconds, before timers round it up to their ticks.

    Two smoothed round trips, and TCP_TIMEOUT_MIN_US (2 ms) with several segments ``in_flight``, but the smallest
    retransmission timeout with exactly one: its ACK may be delayed. Never longer than what is left of the
    retransmission timeout.
    """
    slack = rto_min_ns if in_flight == 1 else PROBE_SLACK_NS
    return min(2 * srtt_ns + slack, rto_left_ns)


class Verdict(enum.IntEnum):
    """What a probe was good for."""

    NEW_DATA = 0  # it repeated nothing
    SPURIOUS = 1
    USEFUL = 2
    UNDECIDED = 3


class Sign(enum.IntEnum):
    """What the verdict rests on."""

    NONE = 0
    ARRIVAL = 1  # the receiver's host was watched
    DSACK = 2
    TIMING = 3
    SECOND_ACK = 4
    NO_DSACK = 5  # the peer sends D-SACKs, and sent none for this
    OVERDUE = 6  # no delayed ACK takes as long as was waited
    HOLE = 7


@dataclass(frozen=True)
class Probes(Entries):
    """One entry a probe.

    ``row`` is the probe, ``before`` the last data that left before it, ``answer`` the row of the ACK
    that covers it (or -1). ``waited`` is the silence before it and ``srtt`` the smoothed round trip if the kernel told
    it (else 0), in nanoseconds. ``in_flight`` counts segments. ``held``: the answer acknowledged more than two segments
    at once, and nothing but the probe was sent again: the ACKs for the first of them were held, whatever became of
    the last. ``shut``: the receiver's window had no room for another segment. ``vantage`` is the sender's end.
    """

    row: Ints
    before: Ints
    answer: Ints
    waited: Ints
    srtt: Ints
    in_flight: Ints
    held: Bools
    shut: Bools
    verdict: Ints
    sign: Ints
    vantage: Ints

    @property
    def repeats(self) -> Bools:
        """Those that brought the last segment once more."""
        again: Bools = self.verdict != Verdict.NEW_DATA
        return again


def probes(timeline: Timeline) -> Probes:
    """All probes, inside and outside of exchanges, each seen from its sender's end where that was watched."""
    parts = [part for end in timeline.vantages for part in (_sent(timeline, end), _arrived(timeline, end))]
    return Probes.joined(parts)


def smallest_round_trip(timeline: Timeline, flow: Ints) -> Ints:
    """The smallest round trip of each of these flows, in nanoseconds."""
    least = np.full(len(timeline.flows), np.iinfo(np.int64).max)
    np.minimum.at(least, timeline.flow_of, timeline.min_rtt)
    least[least == np.iinfo(np.int64).max] = 0
    found: Ints = least[flow]
    return found


def _of_stream(timeline: Timeline) -> tuple[Bools, Ints]:
    """Rows that carry something of a stream, its FIN included, which may be probed too; and where each of them ends."""
    segments = timeline.segments
    fin = segments["tcp_flags"] & Flag.FIN > 0
    carries: Bools = ((segments["bytes"] > 0) | fin) & (segments["tcp_flags"] & (Flag.SYN | Flag.RST) == 0)
    return carries, timeline.end64 + fin


def _sent(timeline: Timeline, vantage: Vantage) -> Probes:
    segments, flow, time = timeline.segments, timeline.segments["flow"].astype(np.int64), timeline.time
    here = timeline.at(vantage)
    carries, end = _of_stream(timeline)
    data = here & (segments["kind"] == Kind.SENT) & carries
    received = here & (segments["kind"] == Kind.RECEIVED)
    acked = timeline.acked(vantage)
    advancing = received & (timeline.ack64 > acked)
    edge = running_max(flow, end, where=data, inclusive=False)

    row = np.flatnonzero(data & (segments["segments"] <= 1) & (edge > NEVER) & (edge > acked))
    before = timeline.previous(data, row)
    rtt = smallest_round_trip(timeline, flow[row])
    # Whatever else holds, there was silence: as long as two round trips at the least.
    paused = time[row] - time[before] >= 2 * rtt + PROBE_SLACK_NS
    row, before, rtt = row[paused], before[paused], rtt[paused]
    last_ack = timeline.previous(advancing, row)
    waited = time[row] - np.maximum(time[before], np.where(last_ack >= 0, time[np.maximum(last_ack, 0)], 0))
    again = end[row] <= edge[row]
    told = segments["has_state"][row]
    silent = waited >= 2 * rtt + PROBE_SLACK_NS
    last = end[row] == edge[row]
    # A timeout repeats the first segment in flight: the last one alone may be either, and its silence tells.
    several = timeline.seq64[row] > acked[row]
    by_time = silent & (several | (waited < TIMEOUT_FLOOR_NS))
    repeats = (
        again & last & np.where(told, np.isin(segments["ca_state"][row], _PROBING_STATES) & silent, by_time)
    )
    keepalive = (end[row] == timeline.end64[row]) & (segments["bytes"][row] <= 1)
    keepalive &= timeline.seq64[row] == edge[row] - 1
    hinted = received & (segments["sack_left"] != segments["sack_right"]) & ~segments["dsack"]
    repeats &= ~keepalive & (timeline.previous(hinted, row) < before)
    # With the receiver's window used up, what is sent again may ask whether it has opened: a zero-window probe. The
    # kernel does not ask so while something is in flight, and its state tells that something was.
    limit = window_edge(timeline, received, row)
    room = limit - edge[row] >= segments["mss"][row]
    repeats &= told | room
    brings = (
        ~again & silent & (last_ack < before) & _had_more(timeline, before) & (segments["bytes"][row] > 0)
    )
    chosen = repeats | brings
    row, before, waited, repeats, rtt = (column[chosen] for column in (row, before, waited, repeats, rtt))
    shut = ~room[chosen]

    fresh = data & (end > edge)
    in_flight = _segments_between(timeline, fresh, np.maximum(acked[row], NEVER), edge[row], flow[row])
    verdict, sign, answer = _judged(timeline, vantage, row, rtt, in_flight, waited)
    srtt = np.where(segments["has_state"][row], segments["srtt_us"][row].astype(np.int64) * 1000, 0)
    verdict = np.where(repeats, verdict, Verdict.NEW_DATA)
    sign = np.where(repeats, sign, Sign.NONE)
    safe = np.maximum(answer, 0)
    sent_again = timeline.following(data & (end <= edge), row)
    held = (answer >= 0) & (acked[safe] <= timeline.seq64[row]) & ((sent_again < 0) | (sent_again > answer))
    held &= (in_flight > _ACKED_AT_ONCE) & (acked[safe] == acked[row])
    return Probes(
        row, before, answer, waited, srtt, in_flight, held, shut, verdict, sign,
        np.full(len(row), int(vantage), np.int64),
    )  # fmt: skip


def _had_more(timeline: Timeline, before: Ints) -> Bools:
    """Whether the sender had more to send after ``before``: by the kernel's word, else by its being full."""
    segments = timeline.segments
    sent = segments["bytes"][before].astype(np.int64) + segments["seq"][before]
    unsent = (segments["write_seq"][before] - sent) % (1 << 32)
    in_flight = segments["in_flight"][before].astype(np.int64) + segments["segments"][before]
    shut = in_flight >= segments["cwnd"][before]
    told: Bools = np.where(segments["has_state"][before], (unsent > 0) & shut, ~timeline.not_full[before])
    return told


def _segments_between(timeline: Timeline, fresh: Bools, low: Ints, high: Ints, flow: Ints) -> Ints:
    """How many segments of the flow's ``fresh`` data lie between two sequence numbers, at least one."""
    if not len(flow):
        return flow
    segments, end = timeline.segments, _of_stream(timeline)[1]
    rows = np.flatnonzero(fresh)
    order = rows[np.lexsort((rows, segments["flow"][rows]))]
    of = segments["flow"][order].astype(np.int64)
    total = np.cumsum(segments["segments"][order].astype(np.int64))
    found = np.ones(len(flow), np.int64)
    for index, (first, last, number) in enumerate(zip(low, high, flow, strict=True)):
        begin, beyond = np.searchsorted(of, (number, number + 1))
        ends = end[order[begin:beyond]]
        one, other = np.searchsorted(ends, (first, last), side="right")
        before = total[begin + one - 1] if begin + one else 0
        found[index] = max(int(total[begin + other - 1] - before) if other else 1, 1)
    return found


def _judged(
    timeline: Timeline, vantage: Vantage, row: Ints, rtt: Ints, in_flight: Ints, waited: Ints
) -> tuple[Ints, Ints, Ints]:
    """Verdict, sign and answer of probes that repeat the last segment. ``rtt`` is the smallest of each one's flow."""
    if not len(row):
        return row, row, row
    segments, flow, time = timeline.segments, timeline.segments["flow"].astype(np.int64), timeline.time
    here, there = timeline.at(vantage), timeline.at(Vantage(1 - vantage))
    received = here & (segments["kind"] == Kind.RECEIVED)
    carries, ends = _of_stream(timeline)
    end = ends[row]
    answer = _first_reaching(timeline, received, row, end)
    safe = np.maximum(answer, 0)

    arrived = there & (segments["kind"] == Kind.RECEIVED) & carries
    arrived_edge = running_max(flow, ends, where=arrived, inclusive=False)
    duplicate = timeline.following(arrived & (ends <= arrived_edge), row)
    had_it = (arrived_edge[row] >= end) | ((duplicate >= 0) & (ends[np.maximum(duplicate, 0)] == end))
    watched = np.isin(flow[row], np.unique(flow[arrived]))

    dsack = received & segments["dsack"]
    told = timeline.following(dsack, row)
    left, right = _blocks(timeline, np.maximum(told, 0))
    by_dsack = (told >= 0) & (left <= timeline.seq64[row]) & (right >= end)
    # A peer that has closed meanwhile answers a FIN that comes again with no D-SACK.
    open_ = segments["tcp_flags"][row] & Flag.FIN == 0
    capable = np.isin(flow[row], np.unique(flow[dsack])) & open_

    soon = (answer >= 0) & (time[safe] - time[row] < rtt * _TOO_SOON)
    pure = (
        received & (segments["bytes"] == 0) & (segments["tcp_flags"] & (Flag.SYN | Flag.FIN | Flag.RST) == 0)
    )
    second = timeline.following(pure, safe)
    second_safe = np.maximum(second, 0)
    twice = (answer >= 0) & (second >= 0) & (timeline.ack64[second_safe] == timeline.ack64[safe])
    twice &= segments["window"][second_safe] == segments["window"][safe]
    twice &= ~(segments["sack_left"] != segments["sack_right"])[second_safe]
    # The probe's own answer is one round trip after it; what comes later is for something else.
    twice &= time[second_safe] - time[row] < 2 * rtt + PROBE_SLACK_NS

    hole = timeline.following(received & (segments["sack_left"] != segments["sack_right"]) & ~dsack, row)
    holed = (hole >= 0) & ((answer < 0) | (hole < answer))

    verdict, sign = np.full(len(row), Verdict.UNDECIDED, np.int64), np.full(len(row), Sign.NONE, np.int64)

    def say(where: Bools, what: Verdict, by: Sign) -> None:
        now = where & (verdict == Verdict.UNDECIDED)
        verdict[now], sign[now] = what, by

    say(watched & had_it, Verdict.SPURIOUS, Sign.ARRIVAL)
    say(watched & ~had_it & (answer >= 0), Verdict.USEFUL, Sign.ARRIVAL)
    say(by_dsack, Verdict.SPURIOUS, Sign.DSACK)
    say(holed, Verdict.USEFUL, Sign.HOLE)
    say(soon, Verdict.SPURIOUS, Sign.TIMING)
    say(twice, Verdict.SPURIOUS, Sign.SECOND_ACK)
    say((answer >= 0) & capable, Verdict.USEFUL, Sign.NO_DSACK)
    # Until then a delayed ACK explains the silence. More segments than it may cover, and then all of them at once: the
    # peer holds its ACKs for as long as it likes, and nothing tells.
    overdue = (in_flight <= _ACKED_AT_ONCE) & (waited > DELACK_MAX_NS) & open_
    say((answer >= 0) & overdue, Verdict.USEFUL, Sign.OVERDUE)
    return verdict, sign, answer


def _blocks(timeline: Timeline, rows: Ints) -> tuple[Ints, Ints]:
    """The edges of the first SACK block, in the numbers of ``seq64``."""
    segments = timeline.segments
    left, right = (
        timeline.ack64[rows] + (segments[edge][rows] - segments["ack"][rows]).astype(np.int32)
        for edge in ("sack_left", "sack_right")
    )
    return left, right


def _first_reaching(timeline: Timeline, received: Bools, row: Ints, end: Ints) -> Ints:
    """For each row the first received one after it that acknowledges up to ``end``, else -1.

    What is acknowledged only grows, so it is the first that reached it at all, or the next one if that came before.
    """
    flow = timeline.segments["flow"].astype(np.int64)
    following = timeline.following(received, row)
    rows = np.flatnonzero(received)
    highest = running_max(flow, timeline.ack64, where=received, at=rows)
    of = flow[rows]
    found = np.full(len(row), -1, np.int64)
    for index, (at, wanted) in enumerate(zip(row.tolist(), end.tolist(), strict=True)):
        begin, beyond = np.searchsorted(of, (flow[at], flow[at] + 1))
        place = begin + np.searchsorted(highest[begin:beyond], wanted)
        if place < beyond:
            found[index] = rows[place] if rows[place] > at else following[index]
    return found


def _arrived(timeline: Timeline, vantage: Vantage) -> Probes:
    """Needless probes as the receiver alone sees them: after silence the very last segment, which it had."""
    segments, flow, time = timeline.segments, timeline.segments["flow"].astype(np.int64), timeline.time
    here = timeline.at(vantage)
    carries, end = _of_stream(timeline)
    arrived = here & (segments["kind"] == Kind.RECEIVED) & carries
    sent = here & (segments["kind"] == Kind.SENT)
    elsewhere = timeline.at(Vantage(1 - vantage)) & (segments["kind"] == Kind.SENT)
    edge = running_max(flow, end, where=arrived, inclusive=False)
    row = np.flatnonzero(arrived & (end == edge) & (segments["segments"] <= 1))
    row = row[~np.isin(flow[row], np.unique(flow[elsewhere]))]
    before = timeline.previous(arrived, row)
    waited = time[row] - time[before]
    fresh = arrived & (end > edge)
    keepalive = (end[row] == timeline.end64[row]) & (segments["bytes"][row] <= 1)
    keepalive &= timeline.seq64[row] == edge[row] - 1
    first = timeline.seq64[row] <= running_max(flow, timeline.seq64, where=fresh, at=before)
    rtt = smallest_round_trip(timeline, flow[row])
    silent = (waited >= 2 * rtt + PROBE_SLACK_NS) & (waited < TIMEOUT_FLOOR_NS)
    offered = window_edge(timeline, sent, row)
    row_kept = silent & ~keepalive & first & (offered - edge[row] >= segments["mss"][row])
    row, before, waited = row[row_kept], before[row_kept], waited[row_kept]
    acked = running_max(flow, timeline.ack64, where=sent, inclusive=False, at=row)
    in_flight = _segments_between(timeline, fresh, acked, edge[row], flow[row])
    size = len(row)
    return Probes(
        row,
        before,
        timeline.following(sent, row),
        waited,
        np.zeros(size, np.int64),
        in_flight,
        in_flight > _ACKED_AT_ONCE,
        np.zeros(size, bool),
        np.full(size, Verdict.SPURIOUS, np.int64),
        np.full(size, Sign.ARRIVAL, np.int64),
        np.full(size, 1 - int(vantage), np.int64),
    )
