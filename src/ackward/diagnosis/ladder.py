"""One exchange as a ladder: the evidence of a finding, step by step."""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.partition import CAUSES, Parts
from ackward.model.causes import STALLS, Cause, End
from ackward.model.report import Ladder, LadderStep, Stall
from ackward.model.segments import Flag, Kind, Nonagle, Vantage

#: Enough for every request-and-answer exchange; a long transfer shows its beginning and its end.
MOST_STEPS = 48

_ENDS = {Vantage.CLIENT: End.CLIENT, Vantage.SERVER: End.SERVER}


def draw(timeline: Timeline, parts: Parts, exchange: int, cause: Cause) -> Ladder:
    """The ladder of one exchange, with the parts that went to ``cause`` marked.

    Times count from the exchange's start.
    """
    segments, start = timeline.segments, int(timeline.start[exchange])
    rows = np.flatnonzero(timeline.exchange == exchange)
    if len(rows) > MOST_STEPS:
        rows = np.concatenate((rows[: MOST_STEPS // 2], rows[-MOST_STEPS // 2 :]))
    base = {
        to_server: int(
            min((timeline.seq64[row] for row in rows if segments["to_server"][row] == to_server), default=0)
        )
        for to_server in (True, False)
    }
    arrival = _arrivals(timeline, rows)
    paired = set(arrival.values())
    half = int(timeline.min_rtt[exchange]) // 2
    steps: list[LadderStep] = []
    for row in map(int, rows):
        if row in paired:
            continue
        segment = segments[row]
        at = int(segment["time_ns"]) - start
        here = _ENDS[Vantage(int(segment["vantage"]))]
        kind = Kind(int(segment["kind"]))
        numbers = {
            "seq": int(timeline.seq64[row]) - base[bool(segment["to_server"])],
            "bytes": int(segment["bytes"]),
        }
        ack = (
            int(timeline.ack64[row]) - base[not segment["to_server"]]
            if segment["tcp_flags"] & Flag.ACK
            else 0
        )
        sender = End.CLIENT if segment["to_server"] else End.SERVER
        if kind == Kind.WRITE_HELD:
            nagle = not segment["nonagle"] & Nonagle.OFF
            state = f"{'Nagle on' if nagle else 'Nagle off'}, {segment['in_flight']} in flight"
            note = f"{segment['bytes']} B written, held ({state})"
            steps.append(LadderStep(at_ns=at, sender=here, kind="write-held", note=note, **numbers))
        elif kind == Kind.ACK_TIMER:
            steps.append(
                LadderStep(
                    at_ns=at,
                    sender=here,
                    kind="ack-timer",
                    note="delayed-ACK timer fired, an ACK was pending",
                )
            )
        elif kind == Kind.SENT:
            there = arrival.get(row)
            arrives = int(segments["time_ns"][there]) - start if there is not None else at + half
            steps.append(
                LadderStep(
                    at_ns=at,
                    arrives_ns=arrives,
                    sender=sender,
                    estimated=there is None,
                    ack=ack,
                    flags=_flags(segment["tcp_flags"]),
                    **numbers,
                )
            )
        elif kind == Kind.RECEIVED:
            steps.append(
                LadderStep(
                    at_ns=at - half,
                    arrives_ns=at,
                    sender=sender,
                    estimated=True,
                    ack=ack,
                    flags=_flags(segment["tcp_flags"]),
                    **numbers,
                )
            )
    stalls = _stalls(parts, exchange, cause, start) if cause in STALLS else []
    steps.sort(key=lambda step: step.at_ns)
    return Ladder(
        elapsed_ns=int(timeline.end[exchange]) - start, steps=steps, stalls=stalls if cause in STALLS else []
    )


def _stalls(parts: Parts, exchange: int, cause: Cause, start: int) -> list[Stall]:
    """The parts of the cause; two claims that meet (three writes, all held) are one stall."""
    mine = np.flatnonzero((parts.exchange == exchange) & (parts.cause == CAUSES.index(cause)))
    stalls: list[Stall] = []
    for begin, end in zip(parts.start[mine].tolist(), parts.end[mine].tolist(), strict=True):
        if stalls and stalls[-1].end_ns == begin - start:
            stalls[-1] = stalls[-1].model_copy(update={"end_ns": end - start})
        else:
            stalls.append(Stall(start_ns=begin - start, end_ns=end - start, label=cause))
    return stalls


def _arrivals(timeline: Timeline, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[int, int]:
    """For each sent row the row at the other end that is the same segment."""
    segments = timeline.segments
    waiting: dict[tuple[bool, int, int, int], list[int]] = {}
    for row in map(int, rows):
        if segments["kind"][row] == Kind.RECEIVED:
            waiting.setdefault(_identity(timeline, row), []).append(row)
    found: dict[int, int] = {}
    for row in map(int, rows):
        if segments["kind"][row] != Kind.SENT:
            continue
        candidates = waiting.get(_identity(timeline, row), [])
        later = next(
            (
                other
                for other in candidates
                if segments["vantage"][other] != segments["vantage"][row] and other > row
            ),
            None,
        )
        if later is not None:
            candidates.remove(later)
            found[row] = later
    return found


def _identity(timeline: Timeline, row: int) -> tuple[bool, int, int, int]:
    segment = timeline.segments[row]
    return (
        bool(segment["to_server"]),
        int(timeline.seq64[row]),
        int(segment["bytes"]),
        int(timeline.ack64[row]),
    )


def _flags(bits: int) -> str:
    return " ".join(flag.name or "" for flag in Flag if bits & flag and flag is not Flag.ACK) or (
        "ACK" if bits & Flag.ACK else ""
    )
