"""How connections end: half-closes, resets, refusals, limits, draining. One gateway alone, and two with legs between."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.kernel.gateway_chain import (
    Running,
    answer_reversed,
    free_port,
    gateway,
    leg_exit,
    peer,
    read_all,
    server,
)
from tests.polling import eventually

from ackward.gateway.settings import FixedListener, Limits, Settings, Steps
from ackward.kernel.namespaces import Namespace, call_inside

STEPS = Steps(early=False, window=False)


@dataclass
class Chain:
    """The first gateway is the one that clients reach; the last connects to servers."""

    host: Namespace
    gateways: list[Running]
    port: int

    def connect(self, timeout: float = 10) -> socket.socket:
        return call_inside(self.host, socket.create_connection, ("127.0.0.1", self.port), timeout)

    def is_reset(self) -> bool:
        """Whether a new client gets a reset: while it waits for an answer, or already while it connects."""
        try:
            with self.connect() as client:
                return client.recv(1) is None
        except ConnectionResetError:
            return True

    def ends(self, number: int = 1) -> list[str]:
        """How each gateway says that the connection ended."""
        return [one.record(number)["end"] for one in self.gateways]


def _settle(chain: Chain) -> None:
    if len(chain.gateways) == 2:
        assert eventually(lambda: chain.gateways[0].idle_legs() >= 1)


@pytest.fixture(params=["single", "legs", "mptcp"])
def chain(request, host: Namespace, tmp_path: Path):
    """Makes a chain of one or two gateways towards a port of the host."""
    with ExitStack() as stack:

        def make(destination: int, limits: Limits | None = None, steps: Steps = STEPS) -> Chain:
            limits = limits or Limits()
            port, leg_port = free_port(host), free_port(host)
            listener = FixedListener(
                "web",
                ("127.0.0.1", port),
                ("127.0.0.1", destination),
                "" if request.param == "single" else "exit",
            )
            gateways = []
            mptcp = request.param == "mptcp"
            if listener.peer:
                door = leg_exit(("127.0.0.1", leg_port), mptcp=mptcp)
                far = Settings(exits=(door,), steps=steps, limits=limits)
                gateways.append(stack.enter_context(gateway(host, far, tmp_path / "far")))
            peers = (replace(peer(("127.0.0.1", leg_port)), mptcp=mptcp),) if listener.peer else ()
            near = Settings(listeners=(listener,), peers=peers, steps=steps, limits=limits)
            gateways.insert(0, stack.enter_context(gateway(host, near, tmp_path / "near")))
            assert [one.error for one in gateways] == [None] * len(gateways)
            made = Chain(host, gateways, port)
            _settle(made)
            return made

        yield make


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_the_client_s_end_leaves_the_server_s_direction_open(host: Namespace, chain):
    with server(host, answer_reversed) as far:
        gateways = chain(far.address[1])
        data = os.urandom(3_000_000)
        with gateways.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == data[::-1]
    assert set(gateways.ends()) == {"done"}
    record = gateways.gateways[0].record()
    assert (record["to_server"], record["to_client"]) == (len(data), len(data))
    assert 0 < record["connect_seconds"] <= record["seconds"]


def test_the_server_s_end_leaves_the_client_s_direction_open(host: Namespace, chain):
    got: list[bytes] = []

    def ends_first(connection: socket.socket) -> None:
        connection.sendall(b"that is all from me")
        connection.shutdown(socket.SHUT_WR)
        got.append(read_all(connection))

    with server(host, ends_first) as far:
        gateways = chain(far.address[1])
        data = os.urandom(3_000_000)
        with gateways.connect() as client:
            assert read_all(client) == b"that is all from me"
            client.sendall(data)
        assert eventually(lambda: got)
        assert got[0] == data
    assert set(gateways.ends()) == {"done"}


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_becomes_a_reset(host: Namespace, chain, who: str):
    seen: list[OSError] = []
    answered = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"here")
        if who == "server":
            answered.wait(10)
            reset(connection)
            return
        try:
            connection.recv(100)
        except OSError as error:
            seen.append(error)

    with server(host, serve) as far:
        gateways = chain(far.address[1])
        client = gateways.connect()
        client.sendall(b"hello")
        assert client.recv(100) == b"here"
        answered.set()
        if who == "client":
            reset(client)
            assert eventually(lambda: seen)
            assert isinstance(seen[0], ConnectionResetError)
        else:
            with pytest.raises(ConnectionResetError):
                client.recv(100)
            client.close()
    assert set(gateways.ends()) == {f"reset-by-{who}"}


def test_a_refused_server_is_a_reset_and_is_told_as_refused(host: Namespace, chain):
    gateways = chain(free_port(host))
    assert gateways.is_reset()
    assert set(gateways.ends()) == {"refused"}
    assert [one.record()["connect_seconds"] for one in gateways.gateways] == [None] * len(gateways.gateways)


def test_an_unreachable_server_is_told_as_unreachable(host: Namespace, tmp_path: Path):
    route = ["ip", "-n", host.name, "route"]
    subprocess.run([*route, "add", "unreachable", "203.0.113.7"], check=True)
    port = free_port(host)
    listener = FixedListener("gone", ("127.0.0.1", port), ("203.0.113.7", 80))
    with gateway(host, Settings(listeners=(listener,), steps=STEPS), tmp_path) as running:
        assert Chain(host, [running], port).is_reset()
        assert running.record()["end"] == "unreachable"
    subprocess.run([*route, "del", "unreachable", "203.0.113.7"], check=True)


@pytest.mark.parametrize("chain", ["legs"], indirect=True)
def test_an_exit_that_does_not_answer_is_given_up_after_the_connect_limit(host: Namespace, chain):
    """The client is connected and has sent something by then; its leg was ready before."""
    with server(host, answer_reversed) as far:
        gateways = chain(far.address[1], Limits(connect=1))
        entry, exit_ = gateways.gateways
        with asleep(exit_), gateways.connect() as client:
            client.sendall(b"anybody?")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            record = entry.record()
        assert (record["end"], record["connect_seconds"]) == ("connect-timeout", None)


@contextmanager
def asleep(running: Running) -> Iterator[None]:
    """Its one worker does nothing meanwhile; the kernel connects whoever wants to."""
    [worker] = running.workers
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def test_a_connection_that_rests_too_long_is_ended(host: Namespace, chain):
    def wait(connection: socket.socket) -> None:
        connection.recv(1)

    with server(host, wait) as far:
        gateways = chain(far.address[1], Limits(idle=0.3))
        with gateways.connect() as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        assert "idle" in gateways.ends()


def test_connections_beyond_the_limit_are_turned_away_and_the_others_stay(host: Namespace, chain):
    with server(host, answer_reversed) as far:
        gateways = chain(far.address[1], Limits(connections=2))
        first, second = gateways.connect(), gateways.connect()
        assert eventually(lambda: len(far.accepted) == 2)
        assert gateways.is_reset()
        for client in (first, second):
            client.sendall(b"abc")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"cba"
            client.close()
        assert gateways.gateways[0].counters["busy"] == 1
        assert eventually(
            lambda: gateways.gateways[0].turned_away == ["web: limits.connections = 2 are open"]
        )


def test_draining_refuses_new_connections_and_lets_the_old_ones_finish(host: Namespace, chain):
    with server(host, answer_reversed) as far:
        gateways = chain(far.address[1])
        with gateways.connect() as client:
            client.sendall(b"before")
            assert eventually(lambda: far.accepted)
            for one in reversed(gateways.gateways):
                one.drain()
            assert eventually(lambda: _refuses(gateways))
            client.sendall(b" and after")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"before and after"[::-1]
        for one in gateways.gateways:
            assert one.process.wait(15) == 0


@pytest.mark.parametrize("chain", ["single"], indirect=True)
def test_draining_serves_whoever_was_connected_by_then(host: Namespace, chain):
    """The kernel has connected more of them than are accepted at one go."""
    with server(host, answer_reversed) as far, ExitStack() as stack:
        gateways = chain(far.address[1])
        [running] = gateways.gateways
        with asleep(running):
            clients = [stack.enter_context(gateways.connect()) for _ in range(300)]
            running.drain()
        for client in clients:
            client.sendall(b"abc")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"cba"
        assert running.process.wait(15) == 0


def _refuses(gateways: Chain) -> bool:
    try:
        gateways.connect(1).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


@pytest.mark.parametrize("killed", [0, -1])
def test_kill_9_is_a_reset_at_both_ends_not_an_end(host: Namespace, chain, killed: int):
    """A FIN would let half an answer look like all of it."""
    seen: list[OSError] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"half of")
        try:
            connection.recv(1)
        except OSError as error:
            seen.append(error)

    with server(host, serve) as far:
        gateways = chain(far.address[1])
        with gateways.connect() as client:
            assert client.recv(100) == b"half of"
            gateways.gateways[killed].kill()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert eventually(lambda: seen)
        assert isinstance(seen[0], ConnectionResetError)


def test_the_pool_recovers_when_the_exit_is_started_again(host: Namespace, tmp_path: Path):
    leg_port, port = free_port(host), free_port(host)
    far_settings = Settings(exits=(leg_exit(("127.0.0.1", leg_port)),), steps=STEPS)
    with server(host, answer_reversed) as far, ExitStack() as stack:
        listener = FixedListener("web", ("127.0.0.1", port), far.address, "exit")
        near = Settings(listeners=(listener,), peers=(peer(("127.0.0.1", leg_port)),), steps=STEPS)
        entry = stack.enter_context(gateway(host, near, tmp_path / "near"))  # before the exit is there
        first = stack.enter_context(gateway(host, far_settings, tmp_path / "far"))
        assert eventually(lambda: entry.idle_legs() == 4)
        first.kill()
        assert eventually(lambda: entry.idle_legs() == 0)
        stack.enter_context(gateway(host, far_settings, tmp_path / "far"))
        assert eventually(lambda: entry.idle_legs() == 4)
        with call_inside(host, socket.create_connection, ("127.0.0.1", port), 5) as client:
            client.sendall(b"again")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"niaga"
