"""Paths that lose what is too long, and ends that acknowledge nothing: named, bounded in time, others untouched."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.kernel.gateway_chain import (
    Running,
    Server,
    answer_reversed,
    ask,
    connect,
    free_port,
    gateway,
    leg_exit,
    peer,
    read_all,
    server,
)
from tests.kernel.gateway_wires import ADDRESSES, Narrow, narrow_path
from tests.polling import eventually

from ackward.gateway.settings import FixedListener, Limits, Settings, Steps
from ackward.lab.topology import run_on, set_sysctls

STEPS = Steps(early=False, window=False)
#: IPv6 allows no less than 1280.
MTU = 1400
LARGE = b"x" * 200_000


#: Looks come every two seconds.
LIMITS = Limits(unacknowledged=16)


@pytest.fixture(scope="module")
def path() -> Iterator[Narrow]:
    """An MTU black hole."""
    with narrow_path(MTU) as made:
        made.silence()
        yield made


@pytest.fixture(scope="module")
def telling() -> Iterator[Narrow]:
    """The same path, whose routers tell what is too long."""
    with narrow_path(MTU) as made:
        yield made


def answer_large(connection: socket.socket) -> None:
    """Much at once; ends when the client does."""
    connection.recv(1)
    connection.sendall(LARGE)
    connection.recv(1)


@contextmanager
def over_legs(
    path: Narrow, receipts: Path, *, family: int = 4, limits: Limits = LIMITS, mss: tuple = (None, None)
) -> Iterator[tuple[Running, Running, Server, Server, int, int]]:
    """Entry, exit, a server that reverses and one that sends much, and the entry's ports to them."""
    leg = (ADDRESSES[family], 9100)
    with ExitStack() as stack:
        servers = [stack.enter_context(server(path.server, one)) for one in (answer_reversed, answer_large)]
        ports = [free_port(path.client) for _ in servers]
        listeners = tuple(
            FixedListener(f"to-{port}", ("127.0.0.1", port), one.address, "exit")
            for port, one in zip(ports, servers, strict=True)
        )
        far = Settings(exits=(leg_exit(leg, mss=mss[1]),), steps=STEPS, limits=limits)
        near = Settings(
            listeners=listeners, peers=(replace(peer(leg), mss=mss[0]),), steps=STEPS, limits=limits
        )
        exit_ = stack.enter_context(gateway(path.server, far, receipts / "far"))
        entry = stack.enter_context(gateway(path.client, near, receipts / "near"))
        assert (exit_.error, entry.error) == (None, None)
        assert eventually(lambda: entry.idle_legs() >= 4)
        yield entry, exit_, *servers, *ports


def test_a_path_that_tells_its_size_needs_nothing(telling: Narrow, tmp_path: Path):
    with over_legs(telling, tmp_path) as (entry, _, _, _, port, _):
        assert ask(telling.client, ("127.0.0.1", port), LARGE) == LARGE
        assert entry.counters["stuck"] == 0


def receive(client: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (part := client.recv(1 << 16)):
        got += part
    return got


@pytest.mark.parametrize("way", ["up", "down"])
def test_over_ipv4_a_black_hole_is_named_and_the_connection_goes_on_in_fragments(
    path: Narrow, tmp_path: Path, way: str
):
    with over_legs(path, tmp_path) as (entry, exit_, _, _, port, pouring):
        with connect(path.client, ("127.0.0.1", port)) as other:
            other.sendall(b"small")
            if way == "up":
                assert ask(path.client, ("127.0.0.1", port), LARGE, 30) == LARGE
            else:
                with connect(path.client, ("127.0.0.1", pouring), 30) as client:
                    client.sendall(b"!")
                    assert receive(client, len(LARGE)) == LARGE
            # The other connection had nothing that was too long.
            other.sendall(b" talk")
            other.shutdown(socket.SHUT_WR)
            assert read_all(other) == b"klat llams"
        one = entry if way == "up" else exit_
        assert eventually(lambda: len(one.stuck) >= 2)
        suspicion, cure = one.stuck[:2]
        assert re.search(
            r"segments of 14\d\d bytes \(path MTU taken to be 1500\) were not acknowledged \d times",
            suspicion["stuck"],
        )
        assert "an MTU black hole, or the path is gone; routers may fragment" in suspicion["stuck"]
        assert ("set peer.exit.mss" if way == "up" else "set exit.mss") in suspicion["stuck"]
        assert cure["went_on"]
        assert one.counters["stuck"] == 1
        assert one.counters["went_on_in_fragments"] == 1


def test_over_ipv4_what_is_left_of_an_answer_when_its_server_has_ended_arrives(path: Narrow, tmp_path: Path):
    """The exit has closed by then and can look at nothing; the kernel sends on."""
    with over_legs(path, tmp_path) as (_, exit_, _, _, _, pouring):
        assert ask(path.client, ("127.0.0.1", pouring), b"!", 30) == LARGE
        assert exit_.record()["end"] == "done"


def test_over_ipv6_a_black_hole_is_named_shown_and_ended_and_others_stay(path: Narrow, tmp_path: Path):
    limits = Limits(unacknowledged=3)
    with over_legs(path, tmp_path, family=6, limits=limits) as (entry, _, far, _, port, _):
        with connect(path.client, ("127.0.0.1", port)) as other:
            other.sendall(b"small")
            began = time.monotonic()
            with connect(path.client, ("127.0.0.1", port)) as client:
                client.sendall(LARGE)
                assert eventually(lambda: any(worker["stuck"] for worker in entry.status))
                [shown] = entry.status[0]["stuck"]
                assert shown["at"] == [ADDRESSES[6], 9100]
                assert shown["segment"] > MTU - 60
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            assert 3 < time.monotonic() - began < 12
            assert entry.record()["end"] == "unacknowledged"
            assert "routers may fragment" not in entry.stuck[0]["stuck"]
            other.sendall(b" talk")
            other.shutdown(socket.SHUT_WR)
            assert read_all(other) == b"klat llams"
        assert eventually(lambda: far.errors)  # the server saw the reset, too
        assert isinstance(far.errors[0], ConnectionResetError)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mss", [(1200, None), (None, 1200)], ids=["entry", "exit"])
def test_with_a_segment_size_at_either_end_nothing_is_lost(path: Narrow, tmp_path: Path, family: int, mss):
    with over_legs(path, tmp_path, family=family, mss=mss) as (entry, exit_, _, _, port, _):
        assert ask(path.client, ("127.0.0.1", port), LARGE, timeout=5) == LARGE
        assert (entry.counters["stuck"], exit_.counters["stuck"]) == (0, 0)


def test_with_the_kernel_s_probing_the_size_is_found(path: Narrow, tmp_path: Path):
    def probing(value: str) -> None:
        for host in (path.client, path.server):
            set_sysctls(host, {"net.ipv4.tcp_mtu_probing": value})

    probing("1")
    try:
        with over_legs(path, tmp_path, family=6) as (entry, exit_, _, _, _, pouring):
            assert ask(path.client, ("127.0.0.1", pouring), b"!", 30) == LARGE
            ends = (entry.counters["ended_unacknowledged"], exit_.counters["ended_unacknowledged"])
            assert ends == (0, 0)
    finally:
        probing("0")


def test_a_reader_that_pauses_is_not_taken_for_one_that_is_gone(telling: Narrow, tmp_path: Path):
    """Its window is closed and its kernel answers: that is no silence, however long it lasts."""
    limits = Limits(unacknowledged=1, keepalive=1, keepalive_interval=1, keepalive_probes=2)
    with over_legs(telling, tmp_path, limits=limits) as (entry, exit_, _, _, port, _):
        client = connect(telling.client, ("127.0.0.1", port))
        with client:
            data = b"0123456789" * 1_500_000
            sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
            sender.start()
            sender.join(20)
            time.sleep(
                5
            )  # five times the limit, and more than all keepalives take: it is the pause that is tested
            assert read_all(client) == data[::-1]
        assert {entry.record()["end"], exit_.record()["end"]} == {"done"}


def test_a_path_that_is_gone_ends_connections_that_rest(tmp_path: Path):
    limits = Limits(
        keepalive=1, keepalive_interval=1, keepalive_probes=2, idle=16
    )  # looked at every two seconds
    with narrow_path(1500) as ours, over_legs(ours, tmp_path, limits=limits) as (entry, _, _, _, _, pouring):
        with connect(ours.client, ("127.0.0.1", pouring)) as client:
            client.sendall(b"!")
            assert receive(client, len(LARGE)) == LARGE
            run_on(ours.routers[0], "ip", "link", "set", "narrow", "down")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert entry.record()["end"] == "unacknowledged"


def test_a_path_that_is_gone_ends_its_connections(tmp_path: Path):
    limits = Limits(unacknowledged=1)
    with narrow_path(1500) as ours, over_legs(ours, tmp_path, limits=limits) as (entry, _, _, _, port, _):
        with connect(ours.client, ("127.0.0.1", port)) as client:
            assert eventually(lambda: entry.status[0]["connections"])
            run_on(ours.routers[0], "ip", "link", "set", "narrow", "down")
            began = time.monotonic()
            client.sendall(b"lost")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert 1 < time.monotonic() - began < 9
        assert entry.record()["end"] == "unacknowledged"
        assert entry.stuck == []  # it is too short to be too long
