"""A dialogue: what two programs do with one connection, call by call, and what each of them saw.

Laws
 - The same dialogue over the same kind of connection gives the same transcript: between two calls everything that is on
   its way arrives (:func:`_settle`), and no call waits for another unless it is begun and ended.
 - A dialogue ends, also when a program would hang: that is what it then saw.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ackward.remedies.bypass.selftest.calls import (
    ARRIVAL,
    BLOCKING,
    CALLS,
    HOLDING,
    is_blocked,
    perform,
    words,
)
from ackward.remedies.bypass.selftest.end import End, Who

#: What a program that is blocked for good waits, seconds, before that is believed.
_PATIENCE = 1.0
#: struct tcp_info (include/uapi/linux/tcp.h): state; bytes_received; notsent_bytes; bytes_sent, bytes_retrans.
_STATE, _RECEIVED, _UNSENT, _SENT = 0, 128, 144, 200
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSED = 1, 4, 5, 7
#: Its own FIN is not acknowledged yet: FIN_WAIT1, LAST_ACK, CLOSING. The ACK will wake who waits (sk_state_change()).
_ENDING = (4, 9, 11)
_OPEN_STATES = (_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2)  # nothing was heard of the other end's FIN


@dataclass(frozen=True)
class Step:
    """One call of one program. A blocking call is begun by one step and collected by another, which ``ends`` it."""

    who: Who
    call: str
    argument: int = 0
    ends: bool = False

    def __str__(self) -> str:
        suffix = ", at its end" if self.ends else " begins" if self.call in BLOCKING else ""
        return f"{self.who} {words(self.call, self.argument)}{suffix}"


@dataclass(frozen=True)
class Seen:
    """What a step gave, and the events at both ends after it."""

    step: str
    gave: str
    client: str
    server: str

    def other_result(self, here: Seen) -> str | None:
        """What the call gave here and not with TCP, in words; none if it gave the same."""
        if self.gave == here.gave:
            return None
        return f"{self.step}: TCP {_short(self.gave, here.gave)}, here {_short(here.gave, self.gave)}"

    def other_events(self, here: Seen) -> str | None:
        """The events after the call here and not with TCP, in words; none if they are the same."""
        for who in ("client", "server"):
            tcp, found = getattr(self, who), getattr(here, who)
            if tcp != found:
                return f"after {self.step} the {who} sees {found}, with TCP {tcp}"
        return None


Transcript = tuple[Seen, ...]
Dialogue = tuple[Step, ...]


def _short(one: str, other: str) -> str:
    """Without the checksum, unless that is the difference."""
    bare, other_bare = (text.partition(" #")[0] + text.partition(" #")[2][8:] for text in (one, other))
    return one if bare == other_bare else bare


def first_difference(tcp: Transcript, here: Transcript) -> str | None:
    """In what a transcript departs from TCP's, in words: a result, else an event; none if it is the same."""
    if len(tcp) != len(here):
        return "one of the dialogues was cut off"
    pairs = list(zip(tcp, here, strict=True))
    for compared in (Seen.other_result, Seen.other_events):
        for one, other in pairs:
            if found := compared(one, other):
                return found
    return None


_WHO: dict[str, Who] = {"c": "client", "s": "server"}


def talk(script: str) -> Dialogue:
    """A dialogue from its script: ``c send 10; s wait 20; s wait 20 ends`` (c: who connected, s: who accepted)."""
    return tuple(_step(line.split()) for line in script.split(";"))


def _step(parts: list[str]) -> Step:
    ends = parts[-1] == "ends"
    if ends:
        parts = parts[:-1]
    argument = int(parts.pop()) if parts[-1].isdigit() else 0
    call = " ".join(parts[1:])
    assert call in CALLS, call
    return Step(_WHO[parts[0]], call, argument, ends)


@dataclass
class _Waiting:
    """A program that is inside a blocking call on the descriptor ``number``."""

    thread: threading.Thread
    number: int
    gave: list[str]

    @classmethod
    def begin(cls, end: End, call: str, argument: int) -> _Waiting:
        gave: list[str] = []
        thread = threading.Thread(target=lambda: gave.append(perform(end, call, argument)), daemon=True)
        thread.start()
        return cls(thread, end.socket.fileno(), gave)

    def rests(self) -> bool:
        """Whether the call has ended or waits: not while the kernel has woken it and it does its work."""
        return bool(self.gave) or is_blocked(self.thread.native_id or 0, self.number)

    def end(self) -> str:
        self.thread.join(_PATIENCE)
        return self.gave[0] if self.gave else "hangs"


def play(dialogue: Dialogue, connecting: socket.socket, accepted: socket.socket) -> Transcript:
    """Play a dialogue over a new connection, which it closes; gives what the programs saw, step by step."""
    ends: dict[Who, End] = {"client": End(connecting), "server": End(accepted)}
    ends["client"].other, ends["server"].other = ends["server"], ends["client"]
    waiting: dict[Who, _Waiting] = {}
    seen: list[Seen] = []
    held = False  # whether a program or a full window may keep bytes back
    counted = True  # how much a writer gets rid of before it is stopped is no part of TCP's promise
    try:
        for step in dialogue:
            end = ends[step.who]
            if step.ends:
                gave = waiting.pop(step.who).end()
            elif step.call in BLOCKING:
                waiting[step.who] = _Waiting.begin(end, step.call, step.argument)
                gave = "begun"
            else:
                gave = perform(end, step.call, step.argument)
            held |= step.call in HOLDING
            _settle(ends["client"], ends["server"], held=held)
            _settle(ends["server"], ends["client"], held=held)
            for blocked in waiting.values():
                _until(blocked.rests)
            counted &= step.call != "fill"
            seen.append(Seen(str(step), gave, *(_events(end, counted=counted) for end in ends.values())))
    finally:
        for end in ends.values():
            # Wakes whoever is still inside a call.
            with contextlib.suppress(OSError):
                end.socket.shutdown(socket.SHUT_RDWR)
        for blocked in waiting.values():
            blocked.thread.join(_PATIENCE)
        for end in ends.values():
            end.release()
    return tuple(seen)


def _events(end: End, *, counted: bool) -> str:
    level, edge, waiting = (perform(end, call, 0) for call in ("poll", "edge", "waiting"))
    if counted:
        return f"{level}, {edge} by edge, {waiting} waiting"
    # In how many parts the rest of a full window comes is no promise either, nor whether the end of the stream has come
    # as long as there is something to read.
    return level if waiting == "0 B" else f"{level.replace('|RDHUP', '')}, bytes waiting"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ARRIVAL
    while not condition() and time.monotonic() < deadline:
        time.sleep(0)


def _info(end: End) -> bytes | None:
    try:
        return end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:
        return None  # closed by the program


def _settle(sender: End, receiver: End, *, held: bool) -> None:
    """Wait until what TCP has sent has arrived: bytes, and that there will be no more.

    Redirected bytes need no waiting: sk_msg puts them into the receiver's queue before send() returns.
    """
    _until(lambda: _arrived(sender, receiver, held=held))


def _arrived(sender: End, receiver: End, *, held: bool) -> bool:
    there = _info(receiver)
    if there is None:
        return True  # nobody is there to whom anything could arrive
    here = _info(sender)
    if here is None:
        return there[_STATE] not in _OPEN_STATES
    if _CLOSED in (here[_STATE], there[_STATE]):
        return here[_STATE] == there[_STATE] or sender.closed or receiver.closed or not _is_reset(here, there)
    if len(here) < _SENT + 16 or len(there) < _RECEIVED + 8:
        return True
    sent, again = struct.unpack_from("=QQ", here, _SENT)
    (received,) = struct.unpack_from("=Q", there, _RECEIVED)
    (unsent,) = struct.unpack_from("=I", here, _UNSENT)
    told = there[_STATE] not in _OPEN_STATES and here[_STATE] not in _ENDING
    finished = not sender.finished or unsent > 0 or told
    # The FIN takes a sequence number, which bytes_received counts.
    return bool(sent - again <= received and finished and (held or not unsent))


def _is_reset(here: bytes, there: bytes) -> bool:
    """Whether one end was reset while the other still thinks that the connection stands."""
    return _ESTABLISHED in (here[_STATE], there[_STATE])
