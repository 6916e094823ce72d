"""Who is asked for joins, who is not stays out, by a reason that is counted, and works as before."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.kernel.bypass_hosts import (
    HANGS,
    close,
    connect,
    engine,
    listener,
    pair,
    readable,
)
from tests.kernel.steering_hosts import CGROUP, cgroup, moved_into

from ackward.kernel.namespaces import Namespace, call_inside, temporary
from ackward.model.scopes import BypassScope
from ackward.remedies.bypass.engine import Engine, attached
from ackward.remedies.bypass.rules import Rules


def test_the_same_addresses_and_ports_in_two_namespaces_never_meet(host: Namespace) -> None:
    """In one bypass for both, whose connections begin at once: each is told by its numbers alone."""
    rules = Rules(BypassScope(ports=(7411, 7411), joins="all"))  # of whatever namespace
    with temporary("bypass-twin") as twin, attached(rules) as both, ExitStack() as stack:
        places = (host, twin)
        listening = [stack.enter_context(listener(place, port=7411)) for place in places]
        for number in range(50):
            clients = [stack.enter_context(call_inside(place, socket.socket)) for place in places]
            for client in clients:
                client.settimeout(HANGS)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind(("127.0.0.1", 10_000 + number))
            at_once = threading.Barrier(2)
            connecting = [threading.Thread(target=_connect, args=(client, at_once)) for client in clients]
            for thread in connecting:
                thread.start()
            for thread in connecting:
                thread.join()
            servers = [stack.enter_context(one.accept()[0]) for one in listening]
            # All that is asked is sent before anything is read.
            for client, said in zip(clients, (b"here", b"there"), strict=True):
                client.sendall(said)
            assert [server.recv(100) for server in servers] == [b"here", b"there"]
            for server, said in zip(servers, (b"from here", b"from there"), strict=True):
                server.sendall(said)
            assert [client.recv(100) for client in clients] == [b"from here", b"from there"]
        counters = both.counters()
        # Two that began within the same 64 ns at both ends have the same numbers: then neither joins.
        assert counters.ambiguous <= 2
        assert min(counters.joined, counters.redirected) >= 200 - 4 * counters.ambiguous


def _connect(client: socket.socket, at_once: threading.Barrier) -> None:
    at_once.wait(HANGS)
    client.connect(("127.0.0.1", 7411))


class TestWhoStaysOut:
    """Each is counted by its reason, and works as before."""

    def test_another_namespace(self, host: Namespace, joining: Engine) -> None:
        with temporary("bypass-other") as other:
            close(*pair(other))
            assert joining.counters().joined == 0

    def test_another_port(self, host: Namespace) -> None:
        with listener(host) as listening:
            port = listening.getsockname()[1]
            for ports, joined in (((port, port), 2), ((1, port - 1), 0), ((port - 1, port + 1), 2)):
                with engine(host, BypassScope(ports=ports, joins="all")) as made:
                    client = connect(host, "127.0.0.1", port)
                    close(client, listening.accept()[0])
                    assert made.counters().joined == joined

    @pytest.mark.parametrize(
        ("scope", "joined"),
        [
            (BypassScope(to="127.0.0.0/8"), True),
            (BypassScope(to="10.0.0.0/8"), False),
            (BypassScope(source="127.0.0.1/32", to="127.0.0.1/32"), True),
            (BypassScope(source="::1/128"), False),
            (BypassScope(excluded_networks=("10.0.0.0/8", "127.0.0.0/8")), False),
            (BypassScope(excluded_networks=("10.0.0.0/8",)), True),
            (BypassScope(excluded_ports=((1, 65535),)), False),
        ],
        ids=lambda value: value.words if isinstance(value, BypassScope) else None,
    )
    def test_other_addresses(self, host: Namespace, scope: BypassScope, joined: bool) -> None:
        with engine(host, scope.model_copy(update={"joins": "all"})) as made:
            client, server = pair(host)
            client.sendall(b"x")
            assert server.recv(1) == b"x"
            assert made.counters().redirected == joined
            close(client, server)

    def test_another_cgroup(self, host: Namespace) -> None:
        with cgroup() as place:
            scope = BypassScope(cgroup=f"/{CGROUP.name}", joins="all")
            with engine(host, scope, cgroup_id=place.stat().st_ino) as made:
                close(*pair(host))
                assert made.counters().joined == 0
                with moved_into(place):
                    close(*pair(host))
                assert made.counters().joined == 2
                with listener(host) as outside, moved_into(place):
                    close(connect(host, *outside.getsockname()), outside.accept()[0])
                assert made.counters().joined == 4  # one end is enough

    def test_multipath(self, host: Namespace, joining: Engine) -> None:
        def both() -> tuple[socket.socket, ...]:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as listening:
                listening.bind(("127.0.0.1", 0))
                listening.listen()
                client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
                client.connect(listening.getsockname())
                return client, listening.accept()[0]

        client, server = call_inside(host, both)
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert joining.counters().joined == 0
        assert joining.counters().mptcp
        close(client, server)

    def test_a_listener_that_waits_for_the_first_bytes(self, host: Namespace, joining: Engine) -> None:
        with listener(host) as listening:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
            client = connect(host, *listening.getsockname())
            client.sendall(b"first")
            server, _ = listening.accept()
            assert readable(server) == 5
            assert server.recv(100) == b"first"
            assert joining.counters().joined == 0
            assert joining.counters().peculiar == 1
            close(client, server)

    def test_fast_open(self, host: Namespace, joining: Engine) -> None:
        def ask() -> None:
            Path("/proc/sys/net/ipv4/tcp_fastopen").write_text(
                "1027"
            )  # client, server, without a cookie: Documentation/networking/ip-sysctl.rst

        call_inside(host, ask)
        with listener(host) as listening:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
            client = call_inside(host, socket.socket)
            client.sendto(b"early", socket.MSG_FASTOPEN, listening.getsockname())
            server, _ = listening.accept()
            assert server.recv(100) == b"early"
            server.sendall(b"back")
            assert client.recv(100) == b"back"
            close(client, server)
        assert joining.counters().joined == 0
        assert joining.counters().fast_open
