"""One exchange and its neighbours as a time-sequence plot: the evidence of a finding, byte by byte.

Laws
 - All points come from one vantage point, so that their order is the order in which it saw them. It is the sender of
   the stalled data where that was watched: there, what may be sent and what is sent can be told apart.
 - A neighbour is drawn only if that does not make the exchange itself small: see REACH.
 - Of more than MOST_SEGMENTS segments those that say most are kept (``_rank``), and of equals an even choice.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.partition import CAUSES, Parts
from ackward.diagnosis.segmented import NEVER, Bools, Ints
from ackward.model.causes import Cause, End
from ackward.model.segments import WINDOW_UNTOLD, Flag, Kind, Nonagle, Vantage
from ackward.model.sequence import MOST_SEGMENTS, SequenceMark, SequencePlot

#: Exchanges before and after that are drawn with the one that the finding is about...
NEIGHBOURS = 2
#: ...if they lie within this many times its length on either side.
REACH = 3
#: More held writes and fired timers than these would cover the segments.
MOST_MARKS = 200
#: A window that moves by less than this share only follows the ACKs.
WINDOW_STEP = 0.25

_SEGMENTS = (Kind.SENT, Kind.RECEIVED)


def plot(timeline: Timeline, parts: Parts, exchange: int, cause: Cause, holding: End | None) -> SequencePlot:
    """The plot around ``exchange``, with the parts of it and of its neighbours that went to ``cause``.

    ``holding`` is the end that holds data back; without one, the end that sent most is taken to be stalled.
    """
    near = _neighbours(timeline, exchange)
    rows = _rows(timeline, near)
    stalled = _stalled_to_server(timeline, rows, holding)
    vantage = _vantage(timeline, rows, stalled_to_server=stalled)
    window = _windows(timeline, rows)
    seen = timeline.segments["vantage"][rows] == vantage
    is_segment = seen & np.isin(timeline.segments["kind"][rows], _SEGMENTS)
    stalls = _stalls(parts, near, cause)
    drawn, window = rows[is_segment], window[is_segment]
    again, late = _repeats(timeline, drawn)
    rank = _rank(timeline, drawn, window, again | late, stalls, exchange)
    kept = _thinned(rank, MOST_SEGMENTS)

    segments = timeline.segments[drawn[kept]]
    ack64 = timeline.ack64[drawn[kept]]
    has_sack = segments["sack_right"] != segments["sack_left"]
    origin = min(int(timeline.start[near].min()), *segments["time_ns"][:1].tolist())
    until = max(int(timeline.end[near].max()), *segments["time_ns"][-1:].tolist())
    marks = _marks(
        timeline, rows[np.isin(timeline.segments["kind"][rows], (Kind.WRITE_HELD, Kind.ACK_TIMER))]
    )
    return SequencePlot(
        seen_from=_seen_from(timeline, exchange, vantage),
        stalled_to_server=stalled,
        elapsed_ns=until - origin,
        exchange_ns=(int(timeline.start[exchange]) - origin, int(timeline.end[exchange]) - origin),
        stalls_ns=tuple((start - origin, end - origin) for start, end in stalls),
        segments_seen=len(drawn),
        at_ns=tuple((segments["time_ns"] - origin).tolist()),
        to_server=tuple(segments["to_server"].tolist()),
        seq=tuple(timeline.seq64[drawn[kept]].tolist()),
        bytes=tuple(segments["bytes"].tolist()),
        flags=tuple(segments["tcp_flags"].tolist()),
        ack=_optional(ack64, ack64 > NEVER),
        window=_optional(window[kept], window[kept] >= 0),
        sack_left=_optional(ack64 + _ahead(segments["sack_left"], segments["ack"]), has_sack),
        sack_right=_optional(ack64 + _ahead(segments["sack_right"], segments["ack"]), has_sack),
        merged=tuple(np.maximum(segments["segments"], 1).tolist()),
        packet=() if segments["has_state"].any() else tuple(segments["packet"].tolist()),
        again=tuple(np.flatnonzero(again[kept]).tolist()),
        late=tuple(np.flatnonzero(late[kept]).tolist()),
        marks=tuple(mark.model_copy(update={"at_ns": mark.at_ns - origin}) for mark in marks[:MOST_MARKS]),
    )


def _neighbours(timeline: Timeline, exchange: int) -> Ints:
    """The exchange and those of its flow that lie near it, in order of time."""
    start, end = int(timeline.start[exchange]), int(timeline.end[exchange])
    reach = REACH * (end - start)
    low, high = max(exchange - NEIGHBOURS, 0), min(exchange + NEIGHBOURS + 1, timeline.count)
    around = np.arange(low, high)
    near: Ints = around[
        (timeline.flow_of[around] == timeline.flow_of[exchange])
        & (timeline.start[around] >= start - reach)
        & (timeline.end[around] <= end + reach)
    ]
    return near


def _rows(timeline: Timeline, near: Ints) -> Ints:
    """All rows of the flow from the start of the first exchange to the end of the last, from every vantage point."""
    flow = timeline.flow_of[near[0]]
    first, last = np.searchsorted(timeline.segments["flow"], (flow, flow + 1))
    time = timeline.time[first:last]
    begin, end = np.searchsorted(time, (timeline.start[near].min(), timeline.end[near].max() + 1))
    return np.arange(first + begin, first + end)


def _stalled_to_server(timeline: Timeline, rows: Ints, holding: End | None) -> bool:
    if holding is not None:
        return holding is End.CLIENT
    sent = np.where(timeline.fresh[rows], timeline.segments["bytes"][rows].astype(np.int64), 0)
    to_server = timeline.segments["to_server"][rows]
    return int(sent[to_server].sum()) >= int(sent[~to_server].sum())


def _vantage(timeline: Timeline, rows: Ints, *, stalled_to_server: bool) -> Vantage:
    there = set(timeline.segments["vantage"][rows].tolist())
    sender = Vantage.CLIENT if stalled_to_server else Vantage.SERVER
    other = Vantage.SERVER if stalled_to_server else Vantage.CLIENT
    return sender if sender in there or other not in there else other


def _seen_from(timeline: Timeline, exchange: int, vantage: Vantage) -> Literal["client", "server", "between"]:
    if timeline.flows[int(timeline.flow_of[exchange])].seen_from == "between":
        return "between"
    return "client" if vantage == Vantage.CLIENT else "server"


def _windows(timeline: Timeline, rows: Ints) -> Ints:
    """The window that each row's segment carries, in bytes, or -1 where nothing tells.

    A capture has it. A socket does not show the header that it received, but the window that it took from it
    (``tcp_sock.snd_wnd``), from its next row on: rows show the state before the segment was taken in.
    """
    segments = timeline.segments[rows]
    untold = segments["has_state"] | (segments["window"] == WINDOW_UNTOLD)
    window = np.where(untold, -1, segments["window"].astype(np.int64))
    time, ack64 = timeline.time[rows], timeline.ack64[rows]
    # snd_una counts what the row's own socket sent: its seq if it is the sender here, else the ack that it got.
    received = segments["kind"] == Kind.RECEIVED
    near64 = np.where(received, ack64, timeline.seq64[rows])
    una64 = near64 + _ahead(segments["snd_una"], np.where(received, segments["ack"], segments["seq"]))
    for to_server, receiver in ((True, Vantage.SERVER), (False, Vantage.CLIENT)):
        state = segments["has_state"] & (segments["vantage"] == receiver) & (near64 > NEVER)
        if not state.any():
            continue
        mine = segments["has_state"] & (segments["to_server"] == to_server) & (ack64 > NEVER)
        acked = np.maximum.accumulate(una64[state])
        place = np.maximum(
            np.searchsorted(time[state], time[mine], side="right"), np.searchsorted(acked, ack64[mine])
        )
        told = place < len(acked)
        shown = segments["peer_window"][state].astype(np.int64)
        window[mine] = np.where(told, shown[np.minimum(place, len(shown) - 1)], -1)
    return window


def _repeats(timeline: Timeline, rows: Ints) -> tuple[Bools, Bools]:
    """Rows that bring no byte beyond those seen: apart, whose bytes were seen before, and who fill a hole."""
    stale = (timeline.segments["bytes"][rows] > 0) & ~timeline.fresh[rows]
    again = np.zeros(len(rows), bool)
    for to_server in (True, False):
        there = timeline.segments["to_server"][rows] == to_server
        mine, first = np.flatnonzero(stale & there), np.flatnonzero(timeline.fresh[rows] & there)
        if not len(first):  # all of it was seen before the first row here
            again[mine] = True
            continue
        seq, end = timeline.seq64[rows[mine]], timeline.end64[rows[mine]]
        # Each fresh row ends higher than all before it, so the one that could have carried a byte is found by its end.
        place = np.searchsorted(timeline.end64[rows[first]], seq, side="right")
        carrier = first[np.minimum(place, len(first) - 1)]
        carried = (place < len(first)) & (carrier < mine) & (timeline.seq64[rows[carrier]] < end)
        repeated = np.ones(len(mine), bool)
        repeated[np.unique(seq, return_index=True)[1]] = False
        again[mine] = carried | repeated | (end <= timeline.seq64[rows[first[0]]])
    return again, stale & ~again


def _rank(
    timeline: Timeline, rows: Ints, window: Ints, odd: Bools, stalls: list[tuple[int, int]], exchange: int
) -> Ints:
    """How little a row says.

    0: the frame of a stall, what was sent again or selectively acknowledged, a window that closed or opened, the
    connection's begin and end. 1: what lies inside a stall or moved the window. 2: the rest of the exchange. 3: its
    neighbours.
    """
    segments = timeline.segments[rows]
    time = timeline.time[rows]
    rank = np.where(timeline.exchange[rows] == exchange, 2, 3)
    for start, end in stalls:
        first, last = np.searchsorted(time, (start, end))
        rank[first:last] = 1
        rank[max(first - 2, 0) : first + 2] = 0
        rank[max(last - 2, 0) : last + 2] = 0
    for to_server in (True, False):
        known = np.flatnonzero((segments["to_server"] == to_server) & (window >= 0))
        before, after = window[known[:-1]], window[known[1:]]
        moved = np.abs(after - before) > WINDOW_STEP * np.maximum(before, after)
        rank[known[1:][moved]] = np.minimum(rank[known[1:][moved]], 1)
        rank[known[1:][moved & ((before == 0) | (after == 0))]] = 0
    turns = segments["tcp_flags"] & (Flag.SYN | Flag.FIN | Flag.RST) > 0
    rank[odd | turns | (segments["sack_right"] != segments["sack_left"])] = 0
    return rank


def _thinned(rank: Ints, most: int) -> Ints:
    """At most ``most`` rows, lower ranks first; of a rank that does not fit, every n-th."""
    kept: list[Ints] = []
    room = most
    for value in np.unique(rank):
        mine = np.flatnonzero(rank == value)
        if len(mine) > room:
            mine = mine[np.linspace(0, len(mine) - 1, room).astype(np.int64)]
        kept.append(mine)
        room -= len(mine)
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)


def _stalls(parts: Parts, near: Ints, cause: Cause) -> list[tuple[int, int]]:
    """The parts of ``near`` that went to the cause; parts that meet are one stall."""
    mine = np.flatnonzero(
        (parts.exchange >= near[0]) & (parts.exchange <= near[-1]) & (parts.cause == CAUSES.index(cause))
    )
    stalls: list[tuple[int, int]] = []
    for start, end in zip(parts.start[mine].tolist(), parts.end[mine].tolist(), strict=True):
        if stalls and stalls[-1][1] == start:
            stalls[-1] = (stalls[-1][0], end)
        else:
            stalls.append((start, end))
    return stalls


def _marks(timeline: Timeline, rows: Ints) -> list[SequenceMark]:
    """Held writes and delayed-ACK timers; a timer stands at the ACK that was pending."""
    marks = []
    for row in map(int, rows):
        segment = timeline.segments[row]
        client = segment["vantage"] == Vantage.CLIENT
        held = segment["kind"] == Kind.WRITE_HELD
        if held:
            rule = "Nagle off" if segment["nonagle"] & Nonagle.OFF else "Nagle on"
            note = f"{segment['bytes']} B written, held ({rule}, {segment['in_flight']} in flight)"
        else:
            note = "delayed-ACK timer fired, an ACK was pending"
        marks.append(
            SequenceMark(
                at_ns=int(segment["time_ns"]),
                end=End.CLIENT if client else End.SERVER,
                kind="write-held" if held else "ack-timer",
                to_server=bool(client == held),
                seq=int(timeline.seq64[row] if held else timeline.ack64[row]),
                bytes=int(segment["bytes"]) if held else 0,
                note=note,
            )
        )
    return marks


def _ahead(number: np.ndarray[tuple[int, ...], np.dtype[np.uint32]], base: Ints) -> Ints:
    """How far a 32-bit sequence number lies after another, negative if before (RFC 9293 section 3.4)."""
    far: Ints = (number.astype(np.int64) - base.astype(np.int64) + (1 << 31)) % (1 << 32) - (1 << 31)
    return far


def _optional(values: Ints, known: Bools) -> tuple[int | None, ...]:
    return tuple(
        value if there else None for value, there in zip(values.tolist(), known.tolist(), strict=True)
    )
