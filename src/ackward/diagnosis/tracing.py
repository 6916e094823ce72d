"""Raw trace events -> what happened, in TCP's own words. Pure: arrays in, models out; nothing is remembered.

Each raw event (``trace_event`` of trace.bpf.c) carries all that its name depends on, so a lost one spoils no other.
Laws
 - An armed timer is no delay. An ACK was delayed by its timer only if that went off with the ACK pending, and sent it.
 - Whether Nagle's algorithm held a write is decided by :func:`ackward.diagnosis.holds.rule_of`, as in a report.
 - What turned quick ACKs on or off is named only if no other rule of the kernel could have.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ackward.diagnosis.holds import Rule, rule_of
from ackward.model.segments import Flag, Kind
from ackward.model.trace import (
    AckEvent,
    AckMode,
    Because,
    EndEvent,
    HeldEvent,
    ModeEvent,
    Outcome,
    Probe,
    ProbeEvent,
    TracedEnd,
    TraceEvent,
)


class What(enum.IntEnum):
    """Kinds of raw events, with the numbers of trace.bpf.c."""

    ACK_ARMED = 1
    ACK_SENT = 2
    WRITE_RELEASED = 3
    SENT_AGAIN = 4
    MODE_CHANGED = 5
    ENDED = 6


class Happened(enum.IntFlag):
    """What a socket went through since its mode was last looked at, with the numbers of trace.bpf.c."""

    DATA_SENT = 1
    TIMER_FIRED = 2
    DATA_RECEIVED = 4
    OUT_OF_ORDER = 8
    CONGESTION_MARK = 16
    FIN_RECEIVED = 32


#: Which timer's handler sent a segment (include/net/inet_connection_sock.h, ICSK_TIME_*).
_TIMERS = {1: Probe.TIMEOUT, 3: Probe.ZERO_WINDOW, 5: Probe.TAIL_LOSS, 6: Probe.REORDERING}
#: enum tcp_ca_state (include/uapi/linux/tcp.h): in these, ACKs clock out what is sent again.
_CLOCKED_REPAIRS = {3: Probe.FAST, 4: Probe.TIMEOUT}
_RULES: dict[int, Literal["nagle", "cork"]] = {Rule.NAGLE: "nagle", Rule.CORK: "cork"}
_DIRECTIONS: dict[int, Literal["sent", "received"]] = {Kind.SENT: "sent", Kind.RECEIVED: "received"}
_32_BITS = 1 << 32
_UNTOLD = 2  # route_quickack in trace.bpf.c


def told(
    events: NDArray[Any], realtime_ns: int, identify: Callable[[Any], TracedEnd]
) -> Iterator[TraceEvent]:
    """The events in order; ``realtime_ns`` is what to add to CLOCK_MONOTONIC, ``identify`` knows an ``end``.

    Writes held by other rules than Nagle's and TCP_CORK are left out: they waited for a window, not for an ACK.
    """
    held = events["held"]
    unsent = (held["write_seq"].astype(np.int64) - held["seq"] - held["bytes"]) % _32_BITS
    queued = np.where(held["kind"] == Kind.SENT, unsent, held["bytes"])
    rules = rule_of(held, queued)
    for row, rule, bytes_held in zip(events, rules.tolist(), queued.tolist(), strict=True):
        what = What(int(row["what"]))
        if what is What.WRITE_RELEASED and rule not in _RULES:
            continue
        everyone = _everyone(row, realtime_ns, identify(row["end"]))
        now = int(row["now"]["time_ns"])
        match what:
            case What.ACK_ARMED | What.ACK_SENT:
                # A timer that was armed for anything else than data in order (a FIN's ACK, a pushed one) has no age.
                data = int(row["data_ns"]) or now
                yield AckEvent(
                    **everyone, outcome=_outcome(row), delay_ns=now - data, data_ns=data + realtime_ns
                )
            case What.WRITE_RELEASED:
                yield HeldEvent(
                    **everyone,
                    rule=_RULES[rule],
                    held_bytes=bytes_held,
                    delay_ns=now - int(row["held"]["time_ns"]),
                    released_by="ack" if _acknowledged(row) else "other",
                )
            case What.ENDED:
                yield EndEvent(**everyone, unsent_bytes=int(row["now"]["bytes"]))
            case What.SENT_AGAIN:
                yield ProbeEvent(**everyone, probe=_probe(row))
            case What.MODE_CHANGED:
                before = row["before"]
                yield ModeEvent(
                    **everyone, before=_mode(row, before, before["route_quickack"]), because=_because(row)
                )


def _everyone(row: Any, realtime_ns: int, end: TracedEnd) -> dict[str, Any]:
    now = row["now"]
    sent, received = int(row["end"]["first_sent"]), int(row["end"]["first_received"])
    direction = _DIRECTIONS.get(int(now["kind"]))
    first = (received, sent) if direction == "received" else (sent, received)
    seq, ack = int(now["seq"]), int(now["ack"])
    return {
        "time_ns": int(now["time_ns"]) + realtime_ns,
        "flow": int(now["flow"]),
        "local": str(end.local),
        "remote": str(end.remote),
        "direction": direction,
        "seq": seq,
        "ack": ack,
        "relative_seq": (seq - first[0]) % _32_BITS,
        "relative_ack": (ack - first[1]) % _32_BITS,
        "bytes": int(now["bytes"]) if direction else 0,
        "netns": end.netns,
        "process": end.process,
        "mode": _mode(row, now, row["route_quickack"]),
    }


def _mode(row: Any, mode: Any, route: int) -> AckMode:
    quick, pingpong = int(mode["quick"]), int(mode["pingpong"])
    threshold = int(row["end"]["pingpong_threshold"]) or 1
    return AckMode(
        quickack=route == 1 or (quick > 0 and pingpong < threshold),
        quick=quick,
        pingpong=pingpong,
        ato=int(mode["ato"]),
        route=None if route == _UNTOLD else bool(route),
    )


def _outcome(row: Any) -> Outcome:
    if row["what"] == What.ACK_ARMED:
        return Outcome.ARMED
    if row["now"]["bytes"] or row["now"]["tcp_flags"] & Flag.FIN:
        return Outcome.WITH_DATA
    return Outcome.FIRED if row["by_ack_timer"] else Outcome.ALONE


def _acknowledged(row: Any) -> bool:
    """Whether an ACK had come for all that was in flight when the hold began: what Nagle's algorithm waits for."""
    held = row["held"]
    in_flight_until = int(held["seq"]) + (int(held["bytes"]) if held["kind"] == Kind.SENT else 0)
    return (int(row["now"]["snd_una"]) - in_flight_until) % _32_BITS < _32_BITS // 2


def _probe(row: Any) -> Probe:
    timer, state = int(row["timer"]), int(row["now"]["ca_state"])
    return _TIMERS.get(timer) or _CLOCKED_REPAIRS.get(state, Probe.UNKNOWN)


def _because(row: Any) -> Because:
    """Which rule changed the mode; the callers of tcp_enter_quickack_mode() and of inet_csk_*_pingpong_mode()."""
    before, after, happened = row["before"], row["now"], Happened(int(row["happened"]))
    if before["route_quickack"] != row["route_quickack"]:
        return Because.ROUTE
    if after["ato"] > before["ato"] == 0:
        return Because.FIRST_DATA
    if after["pingpong"] != before["pingpong"]:
        return _of_pingpong(before, after, happened)
    if after["quick"] != before["quick"]:
        return _of_budget(before, after, happened)
    return Because.TIMER if Happened.TIMER_FIRED in happened else Because.UNKNOWN


def _of_pingpong(before: Any, after: Any, happened: Happened) -> Because:
    if after["pingpong"] > before["pingpong"]:
        if Happened.DATA_SENT in happened:
            return Because.DATA_SENT
        return Because.FIN if Happened.FIN_RECEIVED in happened else Because.SETSOCKOPT
    if Happened.TIMER_FIRED in happened:
        # A timer that finds pingpong sets ato to its least; if ato grew, pingpong had been left before it fired.
        return Because.SETSOCKOPT if after["ato"] > before["ato"] else Because.TIMER
    # Leaving pingpong makes it 0; a FIN makes it what the threshold is (tcp_fin).
    if after["pingpong"] and Happened.FIN_RECEIVED in happened:
        return Because.FIN
    return _forced(happened) or Because.SETSOCKOPT


def _of_budget(before: Any, after: Any, happened: Happened) -> Because:
    # tcp_grow_window() makes the budget odd (quick |= 1); tcp_clamp_window() makes it 0, where an ACK takes one.
    if after["quick"] > before["quick"]:
        if not before["ato"]:
            return _forced(happened) or Because.FIRST_DATA
        grew = after["quick"] == before["quick"] | 1
        return _forced(happened) or (Because.WINDOW_GREW if grew else Because.IDLE)
    if after["quick"]:
        return Because.ACK_SENT
    return Because.BUFFER_FULL if before["quick"] > 1 else Because.BUDGET


def _forced(happened: Happened) -> Because | None:
    """What makes tcp_enter_quickack_mode() be called, if anything of that kind happened."""
    if Happened.OUT_OF_ORDER in happened:
        return Because.OUT_OF_ORDER
    return Because.CONGESTION_MARK if Happened.CONGESTION_MARK in happened else None
