"""Trace events as lines that stand under each other: time, what, how long, who talks to whom, numbers, owner."""

from __future__ import annotations

import time

from ackward.model.trace import (
    AckEvent,
    AckMode,
    EndEvent,
    HeldEvent,
    LostEvent,
    ModeEvent,
    Outcome,
    ProbeEvent,
    SocketEvent,
    TraceEvent,
)
from ackward.model.units import duration, plural
from ackward.report.summary import owner

_OUTCOMES = {
    Outcome.ARMED: "ACK timer armed",
    Outcome.FIRED: "ACK delayed, timer fired",
    Outcome.WITH_DATA: "ACK sent with data",
    Outcome.ALONE: "ACK sent alone",
}
_ARROWS = {"sent": ">", "received": "<", None: "-"}
#: What, how long, the two ends, the numbers: as wide as most of them are.
_WIDTHS = (24, 7, 35, 44)


class Lines:
    """Makes lines; a column is as wide as its widest text so far."""

    def __init__(self) -> None:
        self._widths = list(_WIDTHS)

    def line(self, event: TraceEvent) -> str:
        """One line, without a line break."""
        if isinstance(event, LostEvent):
            return f"{clock(event.time_ns)}  {plural(event.count, 'event')} lost"
        what, waited, more = _told(event)
        columns = [what, waited, _ends(event), _numbers(event)]
        self._widths = [max(width, len(text)) for width, text in zip(self._widths, columns, strict=True)]
        padded = [f"{text:<{width}}" for text, width in zip(columns, self._widths, strict=True)]
        padded[1] = f"{waited:>{self._widths[1]}}"
        tail = "; ".join(part for part in (more, owner(event.process)) if part)
        return "  ".join([clock(event.time_ns), *padded, tail]).rstrip()


def clock(time_ns: int) -> str:
    """The local time of day to the microsecond, as tcpdump prints it."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{nanoseconds // 1000:06}"


def _told(event: SocketEvent) -> tuple[str, str, str]:
    """What happened, how long it took (or nothing), and more for the end of the line."""
    match event:
        case AckEvent():
            more = f"ato {event.mode.ato} jiffies" if event.outcome is Outcome.ARMED else ""
            return _OUTCOMES[event.outcome], duration(event.delay_ns), more
        case HeldEvent():
            rule = "Nagle" if event.rule == "nagle" else "TCP_CORK"
            by = "released by an ACK" if event.released_by == "ack" else "released by something else"
            return f"held by {rule}", duration(event.delay_ns), f"{event.held_bytes} bytes, {by}"
        case ProbeEvent():
            return event.probe.replace("-", " "), "", f"{event.bytes} bytes"
        case ModeEvent():
            return _mode(event), "", f"{event.because}: {_steps(event.before, event.mode)}"
        case EndEvent():
            more = f"{plural(event.unsent_bytes, 'byte')} never left" if event.unsent_bytes else ""
            return "connection ended", "", more
    raise AssertionError("unreachable: all events of sockets are above")


def _mode(event: ModeEvent) -> str:
    """What the change did to the next ACK."""
    same = "still " if event.before.quickack == event.mode.quickack else ""
    return f"quick ACKs {same}{'on' if event.mode.quickack else 'off'}"


def _steps(before: AckMode, after: AckMode) -> str:
    """The parts of the mode that changed."""
    changed = [
        f"{name} {_value(old)}->{_value(new)}"
        for name in ("quick", "pingpong", "ato", "route")
        if (old := getattr(before, name)) != (new := getattr(after, name))
    ]
    return " ".join(changed)


def _value(value: int | bool | None) -> str:
    return "?" if value is None else str(int(value))


def _ends(event: SocketEvent) -> str:
    return f"{event.local} {_ARROWS[event.direction]} {event.remote}"


def _numbers(event: SocketEvent) -> str:
    return f"seq {event.seq} ({event.relative_seq}) ack {event.ack} ({event.relative_ack})"
