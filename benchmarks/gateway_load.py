"""Loads for ``benchmarks.gateway``, each a process: ``python -m benchmarks.gateway_load ROLE PORT ...``.

They touch as few bytes as they can, so that what lies between them is what is measured: the source sends from a file
in memory (``sendfile``), the sink has the kernel throw away what comes (``MSG_TRUNC``).
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from contextlib import suppress

CHUNK = 1 << 20


def source(port: int) -> None:
    """Send for ever to everybody who connects."""
    memory = os.memfd_create("source")
    os.truncate(memory, 64 * CHUNK)
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_now: dict[int, socket.socket] = {}
    print("ready", flush=True)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connection.settimeout(0)
                open_now[connection.fileno()] = connection
                poll.register(connection, select.EPOLLOUT)
                continue
            try:
                os.sendfile(descriptor, memory, 0, CHUNK)
            except BlockingIOError:
                continue
            except OSError:
                open_now.pop(descriptor).close()


def paced(port: int, gigabits: float) -> None:
    """Send so many Gb/s in all, in turns, to everybody who is connected."""
    memory = os.memfd_create("source")
    os.truncate(memory, CHUNK)
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.settimeout(0)
    open_now: deque[socket.socket] = deque()
    print("ready", flush=True)
    sent, began = 0, time.monotonic()
    while True:
        with suppress(BlockingIOError):
            connection, _ = listener.accept()
            connection.settimeout(0)
            open_now.append(connection)
            sent, began = 0, time.monotonic()
        allowed = int((time.monotonic() - began) * gigabits / 8e-9) - sent
        if not open_now or allowed < CHUNK // 4:
            time.sleep(0.0002)
            continue
        sent += min(allowed, CHUNK)  # also where it takes no more: what was missed is not caught up with
        try:
            os.sendfile(open_now[0].fileno(), memory, 0, min(allowed, CHUNK))
        except BlockingIOError:
            pass
        except OSError:
            open_now.popleft().close()
        open_now.rotate(-1)


def echo(port: int) -> None:
    """Give back what comes, message by message."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_now: dict[int, socket.socket] = {}
    print("ready", flush=True)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_now[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            try:
                data = open_now[descriptor].recv(4096)
                if data:
                    open_now[descriptor].send(data)
            except OSError:
                data = b""
            if not data:
                open_now.pop(descriptor).close()


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 20)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def drain(port: int, flows: int, seconds: float) -> None:
    """Bytes a second over so many connections, after a first while; tells when it begins and ends to count."""
    poll = select.epoll()
    connections = {}
    for _ in range(flows):
        connection = connect(port)
        connections[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    buffer = bytearray(4 * CHUNK)

    def until(moment: float) -> int:
        come = 0
        while time.monotonic() < moment:
            for descriptor, _ in poll.poll(0.1):
                come += connections[descriptor].recv_into(
                    buffer, len(buffer), socket.MSG_TRUNC | socket.MSG_DONTWAIT
                )
        return come

    until(time.monotonic() + 0.3)
    print("counting", flush=True)
    began = time.monotonic()
    come = until(began + seconds)
    took = time.monotonic() - began
    print(json.dumps({"bytes": come, "seconds": took}), flush=True)
    sys.stdin.read(1)


def turns(port: int, connections: int, rounds: int) -> None:
    """The time of 64 bytes to the echo and back, over each connection in turn."""
    made = [connect(port) for _ in range(connections)]
    message = b"x" * 64
    times = []
    for number in range(rounds + connections):
        one = made[number % connections]
        began = time.perf_counter_ns()
        one.send(message)
        one.recv(64)
        times.append(time.perf_counter_ns() - began)
    times = sorted(times[connections:])
    print(json.dumps({"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}))


def idle(port: int, connections: int) -> None:
    """Connections that were used once and then rest, until stdin ends."""
    made = []
    for _ in range(connections):
        one = connect(port)
        one.send(b"x")
        one.recv(1)
        made.append(one)
    print("resting", flush=True)
    sys.stdin.read()


def setup(port: int, count: int, at_once: int) -> None:
    """The time from connect() to the first answer, so many connections at once, each begun when one has ended."""
    times: list[int] = []

    def some() -> None:
        for _ in range(count // at_once):
            began = time.perf_counter_ns()
            with connect(port) as one:
                one.send(b"x")
                one.recv(1)
            times.append(time.perf_counter_ns() - began)

    several = [threading.Thread(target=some) for _ in range(at_once)]
    for each in several:
        each.start()
    for each in several:
        each.join()
    times.sort()
    print(json.dumps({name: times[min(len(times) - 1, int(len(times) * share))] for name, share in
                      (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))}))  # fmt: skip


ROLES = {
    "source": source,
    "paced": paced,
    "echo": echo,
    "drain": drain,
    "turns": turns,
    "idle": idle,
    "setup": setup,
}

if __name__ == "__main__":
    role, *numbers = sys.argv[1:]
    ROLES[role](*(float(number) if "." in number else int(number) for number in numbers))  # type: ignore[operator]
