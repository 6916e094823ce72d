"""A reader that is slow, or a machine short of memory, stops a writer as it would over TCP, and costs no byte."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from tests.kernel.bypass_hosts import (
    HANGS,
    close,
    engine,
    pair,
)
from tests.kernel.cgroups import removed
from tests.kernel.quickack_hosts import ip
from tests.polling import eventually
from tests.steady import FINAL

from ackward.kernel.namespaces import Namespace
from ackward.remedies.bypass.engine import Engine

pytestmark = FINAL

LIMITED = Path("/sys/fs/cgroup/memory/memory.kmem.tcp.limit_in_bytes")


def test_a_slow_reader_stops_its_writer_and_gets_every_byte(host: Namespace) -> None:
    with engine(host, most_bytes=100_000) as bounded:
        client, server = pair(host)
        client.setblocking(False)
        # So that TCP's own buffers are small beside what a writer without a bound would get rid of.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        sent = _sent_until_it_blocks(client, most=100 << 20)
        # The bound, one message more, and what TCP's window let in.
        assert bounded.survey().most_waiting_bytes < 100_000 + 7000 + 200_000
        counters = bounded.counters()
        assert counters.passed_full
        assert counters.redirected
        got = b""
        while len(got) < len(sent):
            got += server.recv(65_536)
        assert got == sent
        client.setblocking(True)
        client.sendall(b"goes on")
        assert server.recv(100) == b"goes on"
        assert eventually(lambda: _redirects_again(bounded, client, server))
        close(client, server)


def _sent_until_it_blocks(writer: socket.socket, most: int) -> bytes:
    sent = b""
    while len(sent) < most:
        piece = os.urandom(997) * 7
        try:
            sent += piece[: writer.send(piece)]
        except BlockingIOError:
            return sent
    raise AssertionError(f"nobody stopped it after {most} bytes")


def _redirects_again(bounded: Engine, client: socket.socket, server: socket.socket) -> bool:
    before = bounded.counters().redirected
    client.sendall(b"x")
    assert server.recv(100) == b"x"
    return bounded.counters().redirected > before


def test_a_writer_that_was_stopped_goes_on_when_its_reader_reads(host: Namespace) -> None:
    """Not at TCP's next window probe, 0.2 s later or more: bytes that closed the window have none of ours behind them."""
    ip(host, "link", "set", "lo", "mtu", "1500")
    try:
        with engine(host, most_bytes=256 << 10) as bounded:
            waits = [_longest_wait(host, bounded, size) for size in (4000, 20_000, 60_000, 200_000) * 2]
            assert bounded.counters().passed_full
            assert bounded.counters().redirected
    finally:
        ip(host, "link", "set", "lo", "mtu", "65536")
    assert max(waits) < 0.2, waits


def _longest_wait(host: Namespace, bounded: Engine, size: int) -> float:
    """The longest that a reader has to wait that lets its writer run into the bound first, seconds."""
    client, server = pair(host)
    pieces = (20 << 20) // size

    def write() -> None:
        for _ in range(pieces):
            client.sendall(b"x" * size)
        client.shutdown(socket.SHUT_WR)

    writing = threading.Thread(target=write)
    writing.start()
    assert eventually(_unchanged_for(0.1, bounded.counters))
    longest, got = 0.0, 0
    while True:
        began = time.monotonic()
        piece = server.recv(65_536)
        longest = max(longest, time.monotonic() - began)
        if not piece:
            break
        got += len(piece)
    writing.join(HANGS)
    assert got == pieces * size
    close(client, server)
    return longest


def _unchanged_for(seconds: float, look: Callable[[], object]) -> Callable[[], bool]:
    last, since = look(), time.monotonic()

    def unchanged() -> bool:
        nonlocal last, since
        if (now := look()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > seconds

    return unchanged


def test_many_small_messages_are_bounded_by_their_number(host: Namespace) -> None:
    with engine(host, most_messages=64) as bounded:
        client, server = pair(host)
        for _ in range(1000):
            client.send(b"x")
        counters = bounded.counters()
        assert counters.redirected == 64
        assert counters.passed_many
        got = 0
        while got < 1000:
            got += len(server.recv(100))
        assert eventually(lambda: _redirects_again(bounded, client, server))
        close(client, server)


@pytest.mark.skipif(
    not os.environ.get("CI"),
    reason="changes tcp_mem, which is the whole machine's: only where nobody else works",
)
def test_where_memory_is_short_messages_go_over_tcp(host: Namespace, joining: Engine) -> None:
    """Redirected, they would fail with ENOMEM where TCP waits."""
    limits = Path("/proc/sys/net/ipv4/tcp_mem")  # of the machine, in pages: low, pressure, high
    before = limits.read_text()
    client, server = pair(host)
    try:
        limits.write_text(f"0 0 {before.split()[2]}")
        assert eventually(lambda: _passes(joining, client, server))
    finally:
        limits.write_text(before)
    assert eventually(lambda: _redirects_again(joining, client, server))
    close(client, server)


@pytest.mark.skipif(
    not LIMITED.exists(), reason="probe failed: no cgroup (v1) here limits the memory of sockets"
)
def test_where_the_readers_cgroup_is_full_messages_go_over_tcp(host: Namespace, joining: Engine) -> None:
    """A pod's limit: what is redirected is charged to the reader's cgroup, by which send() would fail with ENOMEM."""
    limit = 16 << 20
    with _cgroup_of_sockets(limit) as inside:
        with inside():
            ends = [pair(host) for _ in range(20)]
        sent = []
        for client, _ in ends:
            client.setblocking(False)
            sent.append(_sent_until_it_blocks(client, most=limit))
        counters = joining.counters()
        assert counters.passed_memory
        assert counters.redirected_bytes > limit / 8
        for (client, server), said in zip(ends, sent, strict=True):
            got = b""
            while len(got) < len(said):
                got += server.recv(1 << 20)
            assert got == said
            client.settimeout(HANGS)
        assert eventually(lambda: _redirects_again(joining, *ends[0]))
        for client, server in ends:
            close(client, server)


@contextmanager
def _cgroup_of_sockets(limit: int) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """A v1 cgroup whose sockets may take so many bytes; sockets made within what it gives are of it."""
    place = LIMITED.parent / f"ackward-{os.getpid()}"

    def moved(to: Path) -> None:
        (to / "cgroup.procs").write_text(str(os.getpid()))

    @contextmanager
    def inside() -> Iterator[None]:
        moved(place)
        try:
            yield
        finally:
            moved(before)

    before = place.parent / _own_cgroup_of_memory()
    place.mkdir()
    try:
        (place / LIMITED.name).write_text(str(limit))
        yield inside
    finally:
        assert eventually(lambda: removed(place))


def _own_cgroup_of_memory() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next(line.split(":")[2] for line in lines if line.split(":")[1] == "memory").lstrip("/")


def _passes(joining: Engine, client: socket.socket, server: socket.socket) -> bool:
    before = joining.counters().passed_memory
    client.sendall(b"x" * 10_000)
    got = 0
    while got < 10_000:
        got += len(server.recv(10_000))
    return joining.counters().passed_memory > before
