"""The two halves of a lab load: a server that answers and a client that asks.

Standard library only: they start fast and run on any host (``ackward lab serve``, ``ackward lab load``).

The shape is that of the delayed-ACK reproduction of the Quickack CNI plugin: a request is ``pings`` writes, an answer
is ``pongs`` writes, and each side may or may not have Nagle's algorithm on.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Shape:
    """One load. Sizes in bytes, times in milliseconds.

    A request is ``pings`` writes whose sizes go round ``sizes``; an answer is ``pongs`` writes of ``answer`` bytes.
    ``latency`` is how long the server thinks before it answers, ``pause`` how long the client computes between
    two writes
    of a request.
    """

    pings: int = 2
    pongs: int = 1
    sizes: tuple[int, ...] = (100, 200)
    answer: int = 100
    rounds: int = 60
    latency: float = 0.0
    pause: float = 0.0
    nagle: bool = True
    family: int = 4
    port: int = 7000

    @property
    def ping_sizes(self) -> list[int]:
        """The writes of one request."""
        return [self.sizes[number % len(self.sizes)] for number in range(self.pings)]

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


def _receive(connection: socket.socket, count: int) -> bool:
    """Read exactly ``count`` bytes; False if the peer closed first."""
    while count:
        data = connection.recv(min(count, 1 << 16))
        if not data:
            return False
        count -= len(data)
    return True


def _think(milliseconds: float) -> None:
    """Be busy elsewhere for a while; sleeping gives the core away, as waiting for a disk or a database would."""
    if milliseconds > 0:
        time.sleep(milliseconds / 1000)


def serve(listener: socket.socket, shape: Shape) -> None:
    """Answer requests on all connections of ``listener``, in one thread, until the process ends."""
    request, answer = sum(shape.ping_sizes), b"A" * shape.answer
    waiting: dict[socket.socket, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(connection, selectors.EVENT_READ)
                    waiting[connection] = 0
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
    """Ask ``shape.rounds`` times over one connection; yields each round's time in nanoseconds."""
    writes = [b"Q" * size for size in shape.ping_sizes]
    answer = shape.pongs * shape.answer
    with socket.create_connection((address, shape.port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0 if shape.nagle else 1)
        for _ in range(shape.rounds):
            began = time.perf_counter_ns()
            for number, write in enumerate(writes):
                if number:
                    _think(shape.pause)
                connection.sendall(write)
            if not _receive(connection, answer):
                raise ConnectionError("the server closed the connection before it had answered")
            yield time.perf_counter_ns() - began


def listen(address: str, shape: Shape) -> socket.socket:
    """A listening socket for :func:`serve`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server(
        (address, shape.port), family=family, backlog=256, dualstack_ipv6=address == "::"
    )


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
