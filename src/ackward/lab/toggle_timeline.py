"""From the trace and the capture of one connection to its timeline. Pure.

Laws
 - A quick ACK is one that left alone while the socket was in quick-ACK mode before or after it, and that neither
   its timer nor a setsockopt sent.
 - A budget's rule is computed from the capture alone; what the socket had is told by the trace alone.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from ackward.model.segments import Flag
from ackward.model.tcp_constants import MAX_QUICKACKS, MSS_DEFAULT
from ackward.model.toggle import (
    Ack,
    AckKind,
    Budget,
    Packet,
    PhaseSeen,
    Point,
    Switch,
    Timeline,
)
from ackward.model.trace import FUNCTIONS, AckEvent, AckMode, Because, ModeEvent, Outcome, SocketEvent

#: The hook of the trace and tcpdump see the same segment at most this far apart, however busy the machine is.
_SAME_SEGMENT_NS = 20_000_000
_LETTERS = ((Flag.SYN, "S"), (Flag.FIN, "F"), (Flag.RST, "R"), (Flag.PSH, "P"), (Flag.ACK, "."))
_32_BITS = 1 << 32
_KINDS = {Outcome.FIRED: AckKind.TIMER, Outcome.WITH_DATA: AckKind.WITH_DATA}
_FILLS = (Because.FIRST_DATA, Because.IDLE, Because.OUT_OF_ORDER, Because.CONGESTION_MARK)


@dataclass(frozen=True)
class Mark:
    """A phase of traffic as the program ran it, CLOCK_REALTIME; ``option`` is getsockopt(TCP_QUICKACK) at its end."""

    name: str
    summary: str
    start_ns: int
    end_ns: int
    option: bool


def budget_rule(window: int, segment: int) -> int:
    """Quick ACKs that tcp_incr_quickack() gives for a receive window and an estimated segment size, both in bytes.

    Half of what it takes to fill the window, at most TCP_MAX_QUICKACKS. Two if that is none (one stays one).
    """
    return min(window // (2 * segment) or 2, MAX_QUICKACKS)


def timeline_of(
    setting: str,
    receive_buffer: int,
    marks: Sequence[Mark],
    events: Sequence[SocketEvent],
    segments: NDArray[Any],
) -> Timeline:
    """The timeline of one connection at its server's end.

    ``events`` are those of that socket, every ACK told; ``segments`` (of dtype ``WIRE_SEGMENT``) are the whole
    connection as captured at that host, handshake included.
    """
    zero = marks[0].start_ns
    events = [event for event in events if event.time_ns <= marks[-1].end_ns]  # without those of closing
    packets = tuple(_packets(segments, zero))
    acks = _acks(events, packets, marks)
    budgets = tuple(_budgets(events, packets, acks, marks))
    return Timeline(
        setting=setting,
        receive_buffer=receive_buffer,
        phases=tuple(_phase(mark, zero, acks, packets) for mark in marks),
        points=tuple(_points(events, zero)),
        acks=tuple(acks),
        switches=tuple(_switches(events, marks)),
        budgets=budgets,
        packets=packets,
    )


def _phase_at(marks: Sequence[Mark], time_ns: int) -> str:
    return next((mark.name for mark in reversed(marks) if mark.start_ns <= time_ns), marks[0].name)


def _packets(segments: NDArray[Any], zero: int) -> Iterator[Packet]:
    """The segments with relative numbers; an ACK's delay counts since the oldest data came that it is the first for."""
    first: dict[bool, int] = {}
    for row in segments:
        if row["tcp_flags"] & Flag.SYN:
            first.setdefault(bool(row["to_server"]), int(row["seq"]))
    waiting: list[tuple[int, int]] = []
    acknowledged = 0
    for row in segments:
        received, flags = bool(row["to_server"]), int(row["tcp_flags"])
        seq = (int(row["seq"]) - first.get(received, 0)) % _32_BITS
        ack = (int(row["ack"]) - first.get(not received, 0)) % _32_BITS if flags & Flag.ACK else 0
        at, delay, octets = int(row["time_ns"]) - zero, None, int(row["bytes"])
        if received and octets and seq + octets > acknowledged:
            waiting.append((seq + octets, at))
        if not received and ack > acknowledged:
            taken = [came for end, came in waiting if end <= ack]
            delay = at - min(taken) if taken else None
            waiting = [(end, came) for end, came in waiting if end > ack]
            acknowledged = ack
        yield Packet(
            at_ns=at,
            direction="received" if received else "sent",
            flags="".join(letter for flag, letter in _LETTERS if flags & flag),
            seq=seq,
            ack=ack,
            bytes=octets,
            window=int(row["window"]),
            delay_ns=delay,
        )


def _points(events: Iterable[SocketEvent], zero: int) -> Iterator[Point]:
    last: AckMode | None = None
    for event in events:
        if event.mode != last:
            last = event.mode
            yield Point(
                at_ns=event.time_ns - zero,
                quickack=last.quickack,
                quick=last.quick,
                pingpong=last.pingpong,
                ato=last.ato,
            )


def _acks(events: Sequence[SocketEvent], packets: Sequence[Packet], marks: Sequence[Mark]) -> list[Ack]:
    zero = marks[0].start_ns
    captured: dict[tuple[int, int, int], list[Packet]] = {}
    for packet in packets:
        if packet.direction == "sent":
            captured.setdefault((packet.seq, packet.ack, packet.bytes), []).append(packet)
    steps = [event for event in events if isinstance(event, ModeEvent)]
    flushed = {event.time_ns for event in steps if event.because is Because.SETSOCKOPT}
    # A budget of one is filled and spent between two looks at the socket.
    at_once = {event.time_ns for event in steps if _fills(event) and event.mode.pingpong == 0}
    acks: list[Ack] = []
    mode: AckMode | None = None
    reached, largest = 1, MSS_DEFAULT
    sizes = iter([packet for packet in packets if packet.direction == "received"])
    coming = next(sizes, None)
    for event in events:
        at = event.time_ns - zero
        while coming is not None and coming.at_ns <= at:
            largest, coming = max(largest, coming.bytes), next(sizes, None)
        if isinstance(event, AckEvent) and event.outcome is not Outcome.ARMED:
            quick = event.mode.quickack or (mode is not None and mode.quickack) or event.time_ns in at_once
            kind = _KINDS.get(event.outcome)
            if kind is None and event.time_ns in flushed:
                kind = AckKind.SETSOCKOPT
            elif kind is None and quick:
                kind = AckKind.QUICK
            elif kind is None:
                kind = AckKind.SECOND_SEGMENT if event.relative_ack - reached > largest else AckKind.READ
            seen = captured.get((event.relative_seq, event.relative_ack, event.bytes), [])
            near = [each for each in seen if abs(each.at_ns - at) < _SAME_SEGMENT_NS]
            acks.append(
                Ack(
                    at_ns=at,
                    phase=_phase_at(marks, event.time_ns),
                    kind=kind,
                    delay_ns=event.delay_ns,
                    wire_delay_ns=near[0].delay_ns if near else None,
                    quick=event.mode.quick,
                    seq=event.relative_seq,
                    ack=event.relative_ack,
                    bytes=event.bytes,
                )
            )
            reached = event.relative_ack
        mode = event.mode
    return acks


def _switches(events: Iterable[SocketEvent], marks: Sequence[Mark]) -> Iterator[Switch]:
    for event in events:
        if isinstance(event, ModeEvent) and event.before.quickack != event.mode.quickack:
            reason = event.because
            yield Switch(
                at_ns=event.time_ns - marks[0].start_ns,
                phase=_phase_at(marks, event.time_ns),
                on=event.mode.quickack,
                reason=reason,
                function=FUNCTIONS[reason],
                before=event.before,
                after=event.mode,
            )


def _budgets(
    events: Sequence[SocketEvent], packets: Sequence[Packet], acks: Sequence[Ack], marks: Sequence[Mark]
) -> Iterator[Budget]:
    zero = marks[0].start_ns
    steps = [event for event in events if isinstance(event, ModeEvent)]
    fills = [event for event in steps if _fills(event)]
    for event in fills:
        at = event.time_ns - zero
        later = (each for each in steps if each.time_ns > event.time_ns)
        end = event
        if event.mode.quick:
            end = next((each for each in later if each in fills or not each.mode.quick), steps[-1])
        refilled = end is not event and end in fills
        # The ACK that leaves with a step is spent before it, but the first after a refill is of the new budget.
        until = end.time_ns - zero - refilled
        spent = Counter(ack.kind for ack in acks if at <= ack.at_ns <= until)
        taken = refilled or end.because is Because.BUFFER_FULL
        left = end.before.quick if taken else end.mode.quick
        ended = end.because if taken else None if left else Because.BUDGET
        window, segment = _announced(packets, at)
        yield Budget(
            at_ns=at,
            phase=_phase_at(marks, event.time_ns),
            reason=event.because,
            window_bytes=window,
            segment_bytes=segment,
            rule=budget_rule(window, segment),
            filled=_filled(event),
            spent={kind: spent[kind] for kind in AckKind if spent[kind]},
            grown=max(0, spent.total() + left - _filled(event)),
            left=left,
            ended=ended,
        )


def _fills(event: ModeEvent) -> bool:
    return _filled(event) > event.before.quick and event.because in _FILLS


def _filled(event: ModeEvent) -> int:
    """The budget before an ACK was sent from it: one that has just left has already taken its own."""
    return event.mode.quick + (event.direction == "sent")


def _announced(packets: Sequence[Packet], at: int) -> tuple[int, int]:
    """The receive window last announced before a moment, and the largest segment that had come, in bytes.

    What stands in packets is what the kernel counts with: tp->rcv_wnd and, where full segments came, icsk_ack.rcv_mss.
    """
    windows = [packet.window for packet in packets if packet.direction == "sent" and packet.at_ns < at]
    sizes = [packet.bytes for packet in packets if packet.direction == "received" and packet.at_ns <= at]
    return (windows[-1] if windows else 0), max([MSS_DEFAULT, *sizes])


def _phase(mark: Mark, zero: int, acks: Iterable[Ack], packets: Sequence[Packet]) -> PhaseSeen:
    mine = [ack for ack in acks if ack.phase == mark.name]
    delays = [ack.delay_ns for ack in mine]
    start, end = mark.start_ns - zero, mark.end_ns - zero
    inside = [packet for packet in packets if start <= packet.at_ns < end]
    sent = [packet for packet in inside if packet.direction == "sent"]
    counts = Counter(ack.kind for ack in mine)
    return PhaseSeen(
        name=mark.name,
        summary=mark.summary,
        start_ns=start,
        end_ns=end,
        option=mark.option,
        acks={kind: counts[kind] for kind in AckKind if counts[kind]},
        delay_p50_ns=int(statistics.median(delays)) if delays else None,
        delay_max_ns=max(delays, default=None),
        packets_received=sum(packet.direction == "received" for packet in inside),
        packets_sent=len(sent),
        duplicates=_duplicates(sent),
    )


def _duplicates(sent: Sequence[Packet]) -> int:
    """RFC 5681 section 2: no data, the same acknowledgement number, the same window."""
    return sum(
        not packet.bytes and (packet.ack, packet.window) == (before.ack, before.window)
        for before, packet in pairwise(sent)
    )
