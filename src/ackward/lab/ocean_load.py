"""The ocean's traffic: a server that answers with as many bytes as it is asked for, a client that notes when they come.

``python -m ackward.lab.ocean_load serve PORT`` and ``... fetch ADDRESS PORT SIZE ROUNDS``, standard library only.
The client prints for each round, in nanoseconds since it began: connected, first byte, last byte. Bytes
are numbered, so that a lost, doubled or strange one is noticed.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

#: Buffers of a fixed size, above every window that the ocean needs.
_BUFFER = 16 << 20
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
#: The answer repeats this; its length is prime, so that no cut of a power of two goes unnoticed.
_PATTERN = bytes(range(251)) * 4096


def serve(port: int) -> None:
    """Answer until ended; prints ``ready``."""
    with socket.create_server(("", port), backlog=128) as listener:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
        try:
            left = int(connection.makefile("rb").readline(32))
            while left:
                left -= connection.send(_PATTERN[: min(left, len(_PATTERN))])
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        except (OSError, ValueError):
            return  # the client sees it, and says so


def fetch(address: str, port: int, size: int) -> tuple[int, int, int]:
    """One download: (connected, first byte, last byte) in nanoseconds; raises OSError, also for a wrong answer."""
    buffer = bytearray(1 << 18)
    began = time.monotonic_ns()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        connection.settimeout(120)
        connection.connect((address, port))
        connected = time.monotonic_ns() - began
        connection.sendall(b"%d\n" % size)
        come, first = 0, 0
        while count := connection.recv_into(buffer):
            first = first or time.monotonic_ns() - began
            place = come % len(_PATTERN)
            expected = _PATTERN[place : place + count]
            if buffer[:count] != expected + _PATTERN[: count - len(expected)]:
                raise OSError(f"wrong bytes after {come}")
            come += count
            if come >= size:
                break
        last = time.monotonic_ns() - began
    if come != size:
        raise OSError(f"{come} bytes instead of {size}")
    return connected, first, last


def flood(address: str, port: int) -> None:
    """Download until ended: the flow that competes."""
    while True:
        fetch(address, port, 1 << 30)


def main(arguments: list[str]) -> int:
    """One of the roles."""
    role, *rest = arguments
    if role == "serve":
        serve(int(rest[0]))
    address, port = rest[0], int(rest[1])
    if role == "flood":
        flood(address, port)
    size, rounds = int(rest[2]), int(rest[3])
    for _ in range(rounds):
        try:
            moments = fetch(address, port, size)
        except OSError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        sys.stdout.write(" ".join(map(str, moments)) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
