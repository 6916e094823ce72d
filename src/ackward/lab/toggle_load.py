"""The traffic of the experiment ``quickack-toggle``: one connection, one phase after the other.

Both ends are sockets of this process, each in its own host, so that the order of what they do is known. The server's
end is the one whose acknowledgements are looked at; TCP_QUICKACK is set there once, right after ``accept``.
"""

from __future__ import annotations

import array
import fcntl
import socket
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ackward.errors import Unavailable
from ackward.kernel.namespaces import call_inside
from ackward.lab.topology import TwoHosts

#: A segment that fills an Ethernet frame of 1500 bytes: 20 (IPv6: 40) + 20 of headers and 12 of timestamps.
FULL = {4: 1448, 6: 1428}
#: Requests and answers that fit in one segment.
SMALL = 100
#: Longer than the lowest retransmission timeout (TCP_RTO_MIN, 200 ms) with the path's time on top: what
#: tcp_event_data_recv() takes for idle.
REST_SECONDS = 0.3
#: Longer than the shortest delayed ACK (TCP_DELACK_MIN, 40 ms), with its jitter of a few ticks.
LATE_SECONDS = 0.07
#: How long anything here may take before something is wrong.
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.0005
#: include/uapi/asm-generic/socket.h; the client must be able to write a whole phase before the server reads any of it.
_SO_SNDBUFFORCE = 32
_SEND_BUFFER = 1 << 20


@dataclass(frozen=True)
class Ends:
    """The two ends of the connection. ``value`` is what TCP_QUICKACK is set to; null: never set."""

    client: socket.socket
    server: socket.socket
    full: int
    value: int | None

    def ask(self, number: int, size: int) -> None:
        """The client writes ``number`` times ``size`` bytes."""
        for _ in range(number):
            self.client.sendall(b"Q" * size)

    def read(self, octets: int, *, step: int = 1 << 16, pause: float = 0.0) -> None:
        """The server reads so many bytes as they come, at most ``step`` at a time, with a pause after each read."""
        while octets:
            octets -= len(self.server.recv(min(step, octets)))
            time.sleep(pause)

    def answer(self) -> None:
        """The server answers, and the client reads it."""
        self.server.sendall(b"A" * SMALL)
        left = SMALL
        while left:
            left -= len(self.client.recv(left))

    def until_arrived(self, octets: int) -> None:
        """Until so many bytes wait in the server's receive queue."""
        self._until(lambda: _count(self.server, termios.FIONREAD) >= octets)

    def until_acknowledged(self) -> None:
        """Until the client knows that all that it wrote has arrived (SIOCOUTQ, tcp(7))."""
        self._until(lambda: _count(self.client, termios.TIOCOUTQ) == 0)

    def set_quickack(self) -> None:
        """TCP_QUICKACK = ``value`` at the server's end, if there is a value."""
        if self.value is not None:
            self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, self.value)

    def quickack(self) -> bool:
        """What the server's end says of TCP_QUICKACK when asked."""
        return bool(self.server.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))

    def _until(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not reached():
            if time.monotonic() > deadline:
                raise TimeoutError("it stood still")
            time.sleep(_POLL_SECONDS)


def _count(end: socket.socket, request: int) -> int:
    octets = array.array("i", [0])
    fcntl.ioctl(end, request, octets)
    return octets[0]


@dataclass(frozen=True)
class Phase:
    """One kind of traffic. ``octets`` is what the client writes in it, given the size of a full segment."""

    name: str
    summary: str
    octets: Callable[[int], int]
    run: Callable[[Ends], None]


def _bulk(ends: Ends) -> None:
    _in_full_segments(ends, BULK_SEGMENTS)


def _idle(ends: Ends) -> None:
    time.sleep(REST_SECONDS)
    _in_full_segments(ends, IDLE_SEGMENTS)


def _idle_in_pingpong(ends: Ends) -> None:
    time.sleep(REST_SECONDS)
    ends.ask(1, SMALL)
    ends.until_acknowledged()
    ends.read(SMALL)
    _in_full_segments(ends, IDLE_SEGMENTS)


def _in_full_segments(ends: Ends, segments: int) -> None:
    ends.client.sendall(b"Q" * (segments * ends.full))
    ends.read(segments * ends.full)


def _interactive(ends: Ends) -> None:
    for number in range(ROUNDS):
        ends.ask(1, SMALL)
        ends.read(SMALL)
        time.sleep(LATE_SECONDS if number in LATE_ROUNDS else 0)
        ends.answer()


def _lossy(ends: Ends) -> None:
    # The link loses the segment at :func:`lost_byte`.
    _in_full_segments(ends, LOSSY_SEGMENTS)
    ends.until_acknowledged()
    _repeated(ends)
    _in_full_segments(ends, AFTER_REPEAT_SEGMENTS)


def _repeated(ends: Ends) -> None:
    """A segment that had come comes again.

    An answer enters pingpong, so the ACK of two small segments waits, and the client's tail loss probe (2 * SRTT with
    two segments in flight) comes before the delayed-ACK timer: some fast rounds see to it that SRTT is short.
    """
    for _ in range(CALM_ROUNDS):
        _into_pingpong(ends)
    ends.ask(2, SMALL)
    ends.until_acknowledged()
    ends.read(2 * SMALL)


def _window_limited(ends: Ends) -> None:
    _with_budget_in_pingpong(ends)
    ends.client.sendall(b"Q" * WINDOW_BYTES)
    time.sleep(LATE_SECONDS)
    ends.read(WINDOW_BYTES, step=8192, pause=0.002)


def _with_budget_in_pingpong(ends: Ends) -> None:
    _repeated(ends)
    _into_pingpong(ends)


def _set_while_unread(ends: Ends) -> None:
    _with_budget_in_pingpong(ends)
    ends.ask(1, SMALL)
    ends.until_arrived(SMALL)
    ends.set_quickack()
    ends.until_acknowledged()
    ends.read(SMALL)
    _one_more(ends)


def _set_after_read(ends: Ends) -> None:
    _with_budget_in_pingpong(ends)
    ends.ask(1, SMALL)
    ends.read(SMALL)
    ends.set_quickack()
    ends.until_acknowledged()
    _one_more(ends)


def _one_more(ends: Ends) -> None:
    """One more segment, which tells whether the option has helped more than once."""
    ends.ask(1, SMALL)
    ends.until_acknowledged()
    ends.read(SMALL)


def _into_pingpong(ends: Ends) -> None:
    ends.ask(1, SMALL)
    ends.read(SMALL)
    ends.answer()


def _first_data(ends: Ends) -> None:
    _in_full_segments(ends, FIRST_DATA_SEGMENTS)


BULK_SEGMENTS, IDLE_SEGMENTS, LOSSY_SEGMENTS, AFTER_REPEAT_SEGMENTS = 60, 6, 40, 24
#: More than the largest budget, which is TCP_MAX_QUICKACKS = 16, and one for each time that the window grows meanwhile.
FIRST_DATA_SEGMENTS = 24
ROUNDS, LATE_ROUNDS = 12, (4, 8)
#: SRTT forgets an eighth at each sample (RFC 6298 section 2.3).
CALM_ROUNDS = 6
_REPEATED_BYTES = (CALM_ROUNDS + 2) * SMALL
#: Which segment of the lossy phase is lost, from 0.
LOST_SEGMENT = 10
WINDOW_BYTES = 200_000

BULK = Phase("bulk", "60 full segments one way, read as they come", lambda full: BULK_SEGMENTS * full, _bulk)
IDLE = Phase("idle", "a rest of 300 ms, then 6 full segments", lambda full: IDLE_SEGMENTS * full, _idle)
INTERACTIVE = Phase(
    "interactive",
    "12 small requests, each answered; the fifth and the ninth answer 70 ms late",
    lambda _: ROUNDS * SMALL,
    _interactive,
)
IDLE_IN_PINGPONG = Phase(
    "idle in pingpong",
    "the same rest after an answer, a small segment that nobody reads yet, then 6 full ones",
    lambda full: SMALL + IDLE_SEGMENTS * full,
    _idle_in_pingpong,
)
LOSSY = Phase(
    "lossy",
    "40 segments of which one is lost; then a tail loss probe repeats one that came; 24 segments",
    lambda full: (LOSSY_SEGMENTS + AFTER_REPEAT_SEGMENTS) * full + _REPEATED_BYTES,
    _lossy,
)
WINDOW = Phase(
    "window-limited",
    "in pingpong with a budget, 200 kB to a reader that rests for 70 ms, then reads 8 kB every 2 ms",
    lambda _: _REPEATED_BYTES + SMALL + WINDOW_BYTES,
    _window_limited,
)
SET_WHILE_UNREAD = Phase(
    "set while unread",
    "in pingpong with a budget a small segment comes; the option is set before it is read; one more",
    lambda _: _REPEATED_BYTES + 3 * SMALL,
    _set_while_unread,
)
SET_AFTER_READ = Phase(
    "set after read",
    "the same, but the option is set after it is read; one more",
    lambda _: _REPEATED_BYTES + 3 * SMALL,
    _set_after_read,
)
PHASES = (
    BULK,
    IDLE,
    INTERACTIVE,
    IDLE_IN_PINGPONG,
    LOSSY,
    WINDOW,
    SET_WHILE_UNREAD,
    SET_AFTER_READ,
)
#: The first data of a new connection, and no more: for the budget alone.
FIRST_DATA = Phase("first data", "24 full segments", lambda full: FIRST_DATA_SEGMENTS * full, _first_data)


def lost_byte(full: int) -> int:
    """Where in the client's stream the segment begins that the lossy phase loses."""
    before = sum(phase.octets(full) for phase in PHASES[: PHASES.index(LOSSY)])
    return before + LOST_SEGMENT * full


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the lab's connection failed: {error.strerror or error}",
            consequence="nothing can be said about its ACKs",
            next_step="run it again on a quieter machine; it needs the congestion control cubic",
        ) from error


@contextmanager
def connected(hosts: TwoHosts, *, family: int, port: int, buffer: int, value: int | None) -> Iterator[Ends]:
    """A connection between the hosts whose server's end has TCP_QUICKACK = ``value`` and SO_RCVBUF = ``buffer``.

    Raises :class:`Unavailable` if it cannot be made, or fails while it is used.
    """
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    address = (hosts.server_address(family), port)
    with ExitStack() as stack:
        stack.enter_context(_reported())
        listener = stack.enter_context(call_inside(hosts.server, socket.socket, kind, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Before the handshake, which announces the window; an accepted socket inherits it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        listener.bind(address)
        listener.listen(1)
        client = stack.enter_context(call_inside(hosts.client, socket.socket, kind, socket.SOCK_STREAM))
        for end in (listener, client):
            end.settimeout(_PATIENCE_SECONDS)
        client.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Neither paced nor waiting for a model of the path, as a bulk sender in the background document.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        client.connect(address)
        server = stack.enter_context(listener.accept()[0])
        server.settimeout(_PATIENCE_SECONDS)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends = Ends(client, server, FULL[family], value)
        ends.set_quickack()
        yield ends
