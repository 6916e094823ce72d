"""The two halves of a lab load: a server that answers and a client that asks.

Standard library only: they start fast and run on any host (``ackward lab serve``, ``ackward lab load``).

The shape is that of the delayed-ACK reproduction of the Quickack CNI plugin: a request is ``pings`` writes, an answer
is ``pongs`` writes, and each side may or may not have Nagle's algorithm on.
"""

from __future__ import annotations

import argparse
import array
import fcntl
import json
import selectors
import socket
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields

_SO_MAX_PACING_RATE = 47  # include/uapi/asm-generic/socket.h


@dataclass(frozen=True)
class Shape:
    """One load. Sizes in bytes, times in milliseconds.

    A request is ``pings`` writes whose sizes go round ``sizes``; an answer is ``pongs`` writes of ``answer`` bytes.
    ``latency`` is how long the server thinks before it answers, ``pause`` how long the client computes between
    two writes of a request, ``rest`` how long it rests between rounds, ``read_pause`` how long it lets an answer wait.

    ``nagle`` and ``server_nagle`` leave Nagle's algorithm on. With ``drain`` the client itself waits until a write was
    acknowledged before the next one, as a hold would. ``reconnect``: each round opens a connection, and its time
    counts. ``receive_buffer`` (the client's, bytes), ``pacing`` (the server's SO_MAX_PACING_RATE, bytes/s) and
    ``congestion`` (both ends') are the kernel's own choice unless set. The server's accept queue has room for
    ``backlog`` + 1, and it does not look there for ``accept_rest`` after it accepted something; ``crowd`` silent
    connections go before each round's own. With ``http`` the writes of a request are its headers and its body, and
    HAProxy is in front of the server.
    """

    pings: int = 2
    pongs: int = 1
    sizes: tuple[int, ...] = (100, 200)
    answer: int = 100
    rounds: int = 60
    latency: float = 0.0
    pause: float = 0.0
    rest: float = 0.0
    read_pause: float = 0.0
    nagle: bool = True
    server_nagle: bool = False
    drain: bool = False
    reconnect: bool = False
    receive_buffer: int = 0
    pacing: int = 0
    congestion: str = ""
    backlog: int = 255
    accept_rest: float = 0.0
    crowd: int = 0
    http: bool = False
    family: int = 4
    port: int = 7000

    @property
    def ping_sizes(self) -> list[int]:
        """The writes of one request."""
        return [self.sizes[number % len(self.sizes)] for number in range(self.pings)]

    @property
    def own_milliseconds(self) -> float:
        """How long one round takes the two programs by their own will."""
        return (
            self.latency
            + self.pause * (self.pings - 1)
            + self.rest
            + self.read_pause
            + self.crowd * (self.accept_rest + 20)
        )

    def to_json(self) -> str:
        """For the other half's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Shape:
        """The inverse of :meth:`to_json`; unknown fields are an error."""
        given = json.loads(text)
        known = {field.name for field in fields(cls)}
        if unknown := set(given) - known:
            raise ValueError(f"unknown fields: {', '.join(sorted(unknown))}")
        if "sizes" in given:
            given["sizes"] = tuple(given["sizes"])
        return cls(**given)


def _think(milliseconds: float) -> None:
    """Be busy elsewhere for a while; sleeping gives the core away, as waiting for a disk or a database would."""
    if milliseconds > 0:
        time.sleep(milliseconds / 1000)


def serve(listener: socket.socket, shape: Shape) -> None:
    """Answer requests on all connections of ``listener``, in one thread, until the process ends."""
    request, answer = sum(shape.ping_sizes), b"A" * shape.answer
    waiting: dict[socket.socket, int] = {}
    rests_until = 0.0
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            rest = rests_until - time.monotonic() if rests_until else None
            if rest is not None and rest <= 0:
                selector.register(listener, selectors.EVENT_READ)
                rests_until, rest = 0.0, None
            for key, _ in selector.select(rest):
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    if not shape.server_nagle:
                        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(connection, selectors.EVENT_READ)
                    waiting[connection] = 0
                    if shape.accept_rest:
                        selector.unregister(listener)
                        rests_until = time.monotonic() + shape.accept_rest / 1000
                    continue
                connection = key.fileobj  # type: ignore[assignment]  # only sockets are registered
                try:
                    data = connection.recv(1 << 16)
                    waiting[connection] += len(data)
                    while waiting[connection] >= request:
                        waiting[connection] -= request
                        _think(shape.latency)
                        for _ in range(shape.pongs):
                            connection.sendall(answer)
                except ConnectionError:
                    data = b""
                if not data:
                    selector.unregister(connection)
                    del waiting[connection]
                    connection.close()


def load(address: str, shape: Shape) -> Iterator[int]:
    """Ask ``shape.rounds`` times; yields each round's time in nanoseconds."""
    connection = None if shape.reconnect else _connect(address, shape)
    try:
        for number in range(shape.rounds):
            if number:
                _think(shape.rest)
            with _crowd(address, shape):
                began = time.perf_counter_ns()
                if shape.reconnect:
                    connection = _connect(address, shape)
                assert connection is not None
                _ask(connection, shape)
                elapsed = time.perf_counter_ns() - began
                if shape.reconnect:
                    connection.close()
            yield elapsed
    finally:
        if connection is not None:
            connection.close()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _choose_congestion_control(endpoint: socket.socket, shape: Shape) -> None:
    # By socket, which root may: by sysctl the host's tcp_allowed_congestion_control would have to change.
    if shape.congestion:
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, shape.congestion.encode())


def _connect(address: str, shape: Shape) -> socket.socket:
    connection = socket.socket(_family(address), socket.SOCK_STREAM)
    try:
        connection.settimeout(30)
        if shape.receive_buffer:  # before the handshake, which announces the window
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, shape.receive_buffer)
        _choose_congestion_control(connection, shape)
        connection.connect((address, shape.port))
        if not shape.nagle:  # else left alone: a program that sets the option overrules the remedy nodelay
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _crowd(address: str, shape: Shape) -> Iterator[None]:
    """Silent connections that came first and fill the server's accept queue."""
    with ExitStack() as stack:
        for _ in range(shape.crowd):
            stack.enter_context(_connect(address, shape))
            _think(20)  # until the server took it, if it takes anything at all: it does not say so
        yield


def _ask(connection: socket.socket, shape: Shape) -> None:
    """One round on a connection."""
    for number, write in enumerate(_request(shape)):
        if number:
            _think(shape.pause)
            if shape.drain:
                _wait_until_acknowledged(connection)
        connection.sendall(write)
    _think(shape.read_pause)
    left = shape.pongs * shape.answer + (_headers_length(connection) if shape.http else 0)
    while left:
        data = connection.recv(min(left, 1 << 16))
        if not data:
            raise ConnectionError("the server closed the connection before it had answered")
        left -= len(data)


def _wait_until_acknowledged(connection: socket.socket) -> None:
    outstanding = array.array("i", [1])
    while outstanding[0]:
        fcntl.ioctl(connection, termios.TIOCOUTQ, outstanding)  # SIOCOUTQ, tcp(7)


def _request(shape: Shape) -> list[bytes]:
    """The writes of one request."""
    sizes = shape.ping_sizes
    if not shape.http:
        return [b"Q" * size for size in sizes]
    body = sum(sizes[1:])
    head = f"POST / HTTP/1.1\r\nHost: lab\r\nContent-Length: {body}\r\n"
    padding = max(0, sizes[0] - len(head) - len("Pad: \r\n\r\n"))
    return [f"{head}Pad: {'p' * padding}\r\n\r\n".encode(), *(b"B" * size for size in sizes[1:])]


def _headers_length(connection: socket.socket) -> int:
    """How many bytes the headers of the answer that waits are; nothing is taken from the socket."""
    while True:
        seen = connection.recv(1 << 16, socket.MSG_PEEK)
        end = seen.find(b"\r\n\r\n")
        if end >= 0:
            break
        if not seen:
            raise ConnectionError("the server closed the connection before it had answered")
    if not seen.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"the server refused: {seen.splitlines()[0].decode(errors='replace')}")
    return end + 4


def listen(address: str, shape: Shape) -> socket.socket:
    """A listening socket for :func:`serve`."""
    listener = socket.create_server(
        (address, shape.port), family=_family(address), backlog=shape.backlog, dualstack_ipv6=address == "::"
    )
    _choose_congestion_control(listener, shape)
    if shape.pacing:
        listener.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, shape.pacing)
    return listener


def main(arguments: Sequence[str]) -> int:
    """``python -m ackward.lab.peer serve|load ADDRESS SHAPE``: prints ``ready``, or one round's nanoseconds a line."""
    parser = argparse.ArgumentParser(prog="ackward.lab.peer")
    parser.add_argument("half", choices=("serve", "load"))
    parser.add_argument("address")
    parser.add_argument("shape", type=Shape.from_json)
    given = parser.parse_args(arguments)
    try:
        if given.half == "serve":
            listener = listen(given.address, given.shape)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            serve(listener, given.shape)
        for nanoseconds in load(given.address, given.shape):
            sys.stdout.write(f"{nanoseconds}\n")
            sys.stdout.flush()
    except OSError as error:
        sys.stderr.write(
            f"{given.half}: {given.address} port {given.shape.port}: {error.strerror or error}\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
