"""A service's first connections show on plain TCP whether the next ones profit."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from tests.kernel.bypass_hosts import (
    HANGS,
    close,
    connect,
    engine,
    listener,
)
from tests.kernel.steering_hosts import cgroup, moved_into

from ackward.kernel.namespaces import Namespace, call_inside
from ackward.lab.topology import two_hosts
from ackward.model.bypass import Hazard
from ackward.model.scopes import BypassScope
from ackward.remedies.bypass.engine import Engine
from ackward.remedies.bypass.rules import Manner


@pytest.fixture
def learning(host: Namespace) -> Iterator[Engine]:
    with engine(host, BypassScope()) as made:
        yield made


def connection(listening: socket.socket, host: Namespace) -> tuple[socket.socket, socket.socket]:
    """Both ends poll: a timeout makes Python set O_NONBLOCK, before connect()."""
    client = connect(host, *listening.getsockname())
    server, _ = listening.accept()
    server.settimeout(HANGS)
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


def take_turns(ends: tuple[socket.socket, socket.socket], times: int) -> None:
    client, server = ends
    for _ in range(times):
        client.sendall(b"question")
        assert server.recv(100) == b"question"
        server.sendall(b"answer")
        assert client.recv(100) == b"answer"


def stream(ends: tuple[socket.socket, socket.socket], size: int, count: int, *, nodelay: bool) -> None:
    """So many writes of the first, which the second reads when all were made or the first has to wait."""
    writer, reader = ends
    writer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)

    def write() -> None:
        for _ in range(count):
            writer.sendall(b"x" * size)

    writing = threading.Thread(target=write)
    writing.start()
    writing.join(0.05)
    got = 0
    while got < size * count:
        got += len(reader.recv(1 << 20))
    writing.join(HANGS)


def test_who_takes_turns_joins(host: Namespace, learning: Engine) -> None:
    with listener(host) as listening:
        first = connection(listening, host)
        take_turns(first, 20)
        assert learning.services() == []  # too early to tell
        take_turns(first, 20)
        (service,) = learning.services()
        assert service.port == listening.getsockname()[1]
        assert service.manner is Manner.JOINS
        # While the first is open and stays what it is, the next one joins.
        second = connection(listening, host)
        take_turns(second, 5)
        counters = learning.counters()
        assert (counters.sampled, counters.joined, counters.redirected) == (1, 2, 10)
        close(*first, *second)


def test_short_connections_are_learned_together(host: Namespace, learning: Engine) -> None:
    with listener(host) as listening:
        for _ in range(20):
            ends = connection(listening, host)
            take_turns(ends, 1)
            close(*ends)
    counters = learning.counters()
    assert counters.sampled + counters.joined // 2 == 20
    assert 8 <= counters.sampled < 16


def test_who_streams_small_writes_stays_on_tcp(host: Namespace, learning: Engine) -> None:
    """TCP gathers them into large segments."""
    with listener(host) as listening:
        for _ in range(3):
            ends = connection(listening, host)
            stream(ends, 1000, 20_000, nodelay=False)
            close(*ends)
    (service,) = learning.services()
    assert service.manner is Manner.STREAMS
    assert service.within
    assert service.writes > 500
    assert service.written == 1000 * service.writes
    assert service.carried > 2 * 1000 * service.sent  # an average segment is that of more than two writes
    counters = learning.counters()
    assert (counters.sampled, counters.joined, counters.streams) == (1, 0, 2)


@pytest.mark.parametrize("way", ["there", "back"])
def test_who_streams_large_writes_joins_between_namespaces_alone(way: str) -> None:
    """By the size of its writes, whichever end makes them, as TCP gathers some of them into a segment."""
    with two_hosts() as hosts, engine(hosts.server, BypassScope()) as learning:
        with listener(hosts.server, "0.0.0.0") as listening:
            port = listening.getsockname()[1]
            joined = []
            for host, address in ((hosts.client, hosts.server_address(4)), (hosts.server, "127.0.0.1")):
                for _ in range(3):
                    before = learning.counters().joined
                    client = connect(host, address, port)
                    server, _ = listening.accept()
                    server.settimeout(HANGS)
                    ends = (client, server) if way == "there" else (server, client)
                    stream(ends, 400, 20_000, nodelay=False)
                    close(client, server)
                    joined.append(learning.counters().joined - before)
        assert joined == [0, 2, 2, 0, 0, 0]
        assert [(one.within, one.manner) for one in sorted(learning.services())] == [
            (False, Manner.JOINS),
            (True, Manner.STREAMS),
        ]
        assert learning.counters().streams == 2


def test_a_long_stream_is_known_before_it_ends() -> None:
    with two_hosts() as hosts, engine(hosts.server, BypassScope()) as learning:
        with listener(hosts.server, "0.0.0.0") as listening:
            port = listening.getsockname()[1]
            client = connect(hosts.client, hosts.server_address(4), port)
            server, _ = listening.accept()
            server.settimeout(HANGS)
            stream((server, client), 16_384, 1000, nodelay=False)
            (service,) = learning.services()
            assert service.manner is Manner.JOINS
            close(client, server)


def test_who_blocks_in_recv_stays_on_tcp(host: Namespace, learning: Engine) -> None:
    with listener(host) as listening:
        for blocking in ("server", "server", "client"):
            client, server = connection(listening, host)
            server.setblocking(blocking == "server")
            take_turns((client, server), 40) if blocking == "server" else None
            close(client, server)
        assert learning.services()[0].manner is Manner.BLOCKS
        assert learning.counters().blocks == 2
        assert learning.counters().joined == 0

        def connect_blocking() -> socket.socket:
            client = socket.socket()
            client.connect(listening.getsockname())
            return client

    with listener(host) as listening:
        client = call_inside(host, connect_blocking)
        close(client, listening.accept()[0])
        assert learning.counters().blocks == 3
        assert learning.counters().sampled == 1


def test_a_client_that_blocks_after_it_has_connected_stays_on_tcp(host: Namespace, learning: Engine) -> None:
    """As one does that limits the time of its connect() alone: the C client of Redis, create_connection(timeout=...)."""
    with listener(host) as listening:
        for _ in range(3):
            client, server = connection(listening, host)
            client.settimeout(None)
            take_turns((client, server), 40)
            close(client, server)
    assert learning.services()[0].manner is Manner.BLOCKS
    counters = learning.counters()
    assert (counters.sampled, counters.blocks, counters.joined) == (1, 2, 0)


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_member_that_has_come_to_block_is_the_last(host: Namespace, learning: Engine, end: str) -> None:
    """The service's first connections were of programs that poll, or of this one before it changed."""
    with listener(host) as listening:
        for number in range(4):
            client, server = connection(listening, host)
            take_turns((client, server), 40)
            if number == 1:
                {"client": client, "server": server}[end].settimeout(None)
                take_turns((client, server), 5)
            close(client, server)
    assert learning.services()[0].manner is Manner.BLOCKS
    counters = learning.counters()
    assert (counters.sampled, counters.joined, counters.blocks) == (1, 2, 2)


def test_one_client_that_blocks_keeps_only_those_of_its_cgroup_out(host: Namespace, learning: Engine) -> None:
    def ask(*, blocking: bool) -> int:
        before = learning.counters().joined
        client, server = connection(listening, host)
        client.settimeout(None if blocking else HANGS)
        take_turns((client, server), 40)
        close(client, server)
        return learning.counters().joined - before

    with cgroup() as place, listener(host) as listening:
        with moved_into(place):
            assert [ask(blocking=True) for _ in range(2)] == [0, 0]
        assert [ask(blocking=False) for _ in range(2)] == [0, 2]
        with moved_into(place):
            assert ask(blocking=False) == 0
    assert sorted(service.manner for service in learning.services()) == [Manner.JOINS, Manner.BLOCKS]


def test_who_blocks_in_recv_joins_if_that_was_accepted(host: Namespace) -> None:
    scope = BypassScope(accepted=(Hazard.WAITALL, Hazard.WAKEUP, Hazard.SHUT_READ))
    with engine(host, scope) as learning, listener(host) as listening:
        for _ in range(2):
            client, server = connection(listening, host)
            server.setblocking(True)
            take_turns((client, server), 40)
            close(client, server)
        assert learning.services()[0].manner is Manner.JOINS
        assert learning.counters().joined == 2


def test_options_that_a_sock_map_ignores_keep_a_service_out(host: Namespace, learning: Engine) -> None:
    with listener(host) as listening:
        for _ in range(2):
            client, server = connection(listening, host)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4)
            take_turns((client, server), 40)
            close(client, server)
    assert learning.services()[0].manner is Manner.PECULIAR
    assert learning.counters().peculiar == 1
    assert learning.counters().joined == 0


def test_a_service_may_change_its_ways(host: Namespace, learning: Engine) -> None:
    """One in 32 connections is sampled again, whatever was learned."""
    with listener(host) as listening:
        for number in range(40):
            client, server = connection(listening, host)
            if number < 3:
                take_turns((client, server), 40)
            else:
                stream((client, server), 1000, 20_000, nodelay=False)
            close(client, server)
    counters = learning.counters()
    assert counters.sampled >= 2
    assert counters.joined
    assert counters.streams
    assert learning.services()[0].manner is Manner.STREAMS
