"""The pool of legs: ready before it is asked, refilled, sized by load, with other keys and addresses, wide."""

from __future__ import annotations

import random
import re
import socket
import subprocess
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.kernel.gateway_chain import (
    KEY,
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
from tests.polling import eventually

from ackward.gateway.settings import FixedListener, Limits, Settings, Steps
from ackward.kernel import sysctl
from ackward.kernel.namespaces import Namespace, call_inside, command_inside, temporary
from ackward.lab.topology import CLIENT, set_sysctls, two_hosts
from ackward.lab.wan import Wan
from ackward.remedies.receipts import Receipts

STEPS = Steps(early=False, window=False)


def test_legs_wait_are_used_and_are_made_anew(host: Namespace, tmp_path: Path):
    leg_port, port = free_port(host), free_port(host)
    with (
        server(host, answer_reversed) as far,
        gateway(
            host, Settings(exits=(leg_exit(("127.0.0.1", leg_port)),), steps=STEPS), tmp_path / "far"
        ) as exit_,
    ):
        listener = FixedListener("web", ("127.0.0.1", port), far.address, "exit")
        entry = Settings(listeners=(listener,), peers=(peer(("127.0.0.1", leg_port), least=3),), steps=STEPS)
        with gateway(host, entry, tmp_path / "near") as near:
            assert eventually(lambda: near.idle_legs() >= 3)
            descriptors = [near.open_descriptors(), exit_.open_descriptors()]
            for number in range(40):
                words = f"request {number}".encode()
                assert ask(host, ("127.0.0.1", port), words) == words[::-1]
            counters = near.counters
            assert counters["legs_used"] == 40
            assert counters["pool_empty"] == 0  # refilled ahead of demand
            assert counters["legs_failed"] == 0
            # Sized by load, then back; nothing is left open.
            assert eventually(lambda: near.idle_legs() <= 6, within=15)
            assert eventually(lambda: near.counters["connections"] == exit_.counters["connections"] == 0)
            assert eventually(lambda: near.open_descriptors() <= descriptors[0] + 8)
            assert eventually(lambda: exit_.open_descriptors() <= descriptors[1] + 8)
            assert near.counters["pipes_not_empty"] == exit_.counters["pipes_not_empty"] == 0


def test_the_pool_grows_with_the_load_and_shrinks_after_it(tmp_path: Path):
    """20 ms each way between the gateways: what is asked for while a leg is being made is far more than the least."""
    with two_hosts(Wan.of(20)) as hosts, server(hosts.server, answer_reversed) as far, ExitStack() as stack:
        leg_address, port = (hosts.addresses[4], 9100), free_port(hosts.client)
        listener = FixedListener("web", ("127.0.0.1", port), far.address, "exit")
        entry = Settings(listeners=(listener,), peers=(peer(leg_address, least=2),), steps=STEPS)
        stack.enter_context(
            gateway(hosts.server, Settings(exits=(leg_exit(leg_address),), steps=STEPS), tmp_path / "far")
        )
        near = stack.enter_context(gateway(hosts.client, entry, tmp_path / "near"))

        def wanted() -> int:
            return near.status[0]["pools"]["exit"]["wanted"]

        assert eventually(lambda: near.idle_legs() >= 2)
        assert wanted() <= 3
        enough = threading.Event()

        def load() -> None:
            while not enough.is_set():
                assert ask(hosts.client, ("127.0.0.1", port), b"abc") == b"cba"

        clients = [threading.Thread(target=load) for _ in range(8)]
        for client in clients:
            client.start()
        try:
            assert eventually(lambda: wanted() >= 6 and near.idle_legs() >= 6)
        finally:
            enough.set()
            for client in clients:
                client.join()
        most = wanted()
        assert eventually(lambda: wanted() < most)


def test_without_a_pool_each_connection_makes_its_leg(host: Namespace, tmp_path: Path):
    leg_port, port = free_port(host), free_port(host)
    steps = Steps(early=False, pool=False, window=False)
    with (
        server(host, answer_reversed) as far,
        gateway(host, Settings(exits=(leg_exit(("127.0.0.1", leg_port)),), steps=steps), tmp_path / "far"),
    ):
        listener = FixedListener("web", ("127.0.0.1", port), far.address, "exit")
        entry = Settings(listeners=(listener,), peers=(peer(("127.0.0.1", leg_port)),), steps=steps)
        with gateway(host, entry, tmp_path / "near") as near:
            assert eventually(lambda: near.status[0]["pools"]["exit"]["connected"])
            for _ in range(3):
                assert ask(host, ("127.0.0.1", port), b"abc") == b"cba"
            assert near.idle_legs() == 0
            assert near.counters["pool_empty"] == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_wrong_key_makes_no_leg_and_is_told_at_both_ends(host: Namespace, tmp_path: Path, workers: int):
    leg_port, port = free_port(host), free_port(host)
    limits = Limits(leg_handshake=1)
    exit_settings = Settings(
        exits=(leg_exit(("127.0.0.1", leg_port)),), steps=STEPS, workers=workers, limits=limits
    )
    with gateway(host, exit_settings, tmp_path / "far") as exit_:
        listener = FixedListener("web", ("127.0.0.1", port), ("127.0.0.1", 1), "exit")
        wrong = peer(("127.0.0.1", leg_port), key=KEY[::-1])
        with gateway(
            host, Settings(listeners=(listener,), peers=(wrong,), steps=STEPS), tmp_path / "near"
        ) as near:
            assert eventually(lambda: near.failures and exit_.failures)
            assert "does not know the key" in near.failures[0]["failed"]
            assert "nobody is known by the key" in exit_.failures[0]["failed"]
            with pytest.raises(ConnectionResetError):
                ask(host, ("127.0.0.1", port), b"anybody?")
            assert near.record()["end"] == "leg-lost"
        assert exit_.counters["legs_ready"] == 0


def test_legs_may_use_mptcp_and_carry_urgent_bytes_in_their_place(host: Namespace, tmp_path: Path):
    leg_port, port = free_port(host), free_port(host)
    door = leg_exit(("127.0.0.1", leg_port), mptcp=True)
    got: list[bytes] = []
    before = mptcp_counters(host)
    with (
        server(host, lambda connection: got.append(read_all(connection))) as far,
        gateway(host, Settings(exits=(door,), steps=STEPS), tmp_path / "far") as exit_,
    ):
        listener = FixedListener("web", ("127.0.0.1", port), far.address, "exit")
        with_mptcp = replace(peer(("127.0.0.1", leg_port)), mptcp=True)
        entry = Settings(listeners=(listener,), peers=(with_mptcp,), steps=STEPS)
        with gateway(host, entry, tmp_path / "near") as near:
            assert (exit_.error, near.error) == (None, None)
            assert eventually(lambda: near.idle_legs() >= 4)
            data = random.Random(1).randbytes(2_000_000)
            with connect(host, ("127.0.0.1", port)) as client:
                client.sendall(b"abc")
                client.send(b"!", socket.MSG_OOB)
                client.sendall(data)
            assert eventually(lambda: got)
            assert got == [b"abc!" + data]
            legs = near.counters["legs_ready"]
    grown = {name: count - before[name] for name, count in mptcp_counters(host).items()}
    assert grown["MPCapableACKRX"] >= legs, grown
    assert sum(count for name, count in grown.items() if "Fallback" in name) == 0, grown


def mptcp_counters(host: Namespace) -> dict[str, int]:
    text = call_inside(host, Path("/proc/thread-self/net/netstat").read_text)
    names, numbers = (line.split()[1:] for line in text.splitlines() if line.startswith("MPTcpExt:"))
    return dict(zip(names, map(int, numbers), strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_gateway_s_legs_that_are_led_back_to_it_are_refused(host: Namespace, tmp_path: Path, workers: int):
    """One key serves both directions: its own exit would take them for its peer's."""
    leg_port = free_port(host)
    listener = FixedListener("web", ("127.0.0.1", free_port(host)), ("127.0.0.1", 1), "exit")
    settings = Settings(
        listeners=(listener,),
        peers=(peer(("127.0.0.1", leg_port)),),
        exits=(leg_exit(("127.0.0.1", leg_port)),),
        steps=STEPS,
        workers=workers,
    )
    with gateway(host, settings, tmp_path) as running:
        assert eventually(lambda: len(running.failures) >= 2 * workers)
        assert any("a HELLO of this gateway itself" in one["failed"] for one in running.failures)
        assert running.counters["legs_ready"] == 0


def test_without_mptcp_on_this_host_legs_that_ask_for_it_are_refused_in_words(tmp_path: Path):
    with temporary("host") as host:
        set_sysctls(host, {"net.mptcp.enabled": "0"})
        port = free_port(host)
        door = leg_exit(("127.0.0.1", port), mptcp=True)
        with gateway(host, Settings(exits=(door,), steps=STEPS), tmp_path) as running:
            assert running.error["exit_code"] == 3
            assert "this host has no MPTCP" in running.error["missing"]
        listener = FixedListener("web", ("127.0.0.1", free_port(host)), ("127.0.0.1", 1), "exit")
        peers = (replace(peer(("127.0.0.1", port)), mptcp=True),)
        with gateway(host, Settings(listeners=(listener,), peers=peers, steps=STEPS), tmp_path) as running:
            assert eventually(lambda: running.failures)
            assert "this host has no MPTCP" in running.failures[0]["failed"]


def test_the_step_window_is_on_the_routes_between_the_gateways_and_gone_afterwards(tmp_path: Path):
    steps = Steps(early=False)
    with two_hosts() as hosts, server(hosts.server, answer_reversed) as far:
        leg_address, port = (hosts.addresses[4], 9100), free_port(hosts.client)
        client_network = f"{CLIENT[4]}/32"
        settings = Settings(
            exits=(leg_exit(leg_address, networks=(client_network,)),), steps=steps, segments=300
        )
        listener = FixedListener("web", ("127.0.0.1", port), far.address, "exit")
        entry = Settings(listeners=(listener,), peers=(peer(leg_address),), steps=steps, segments=300)
        before = [_routes(host) for host in (hosts.client, hosts.server)]
        with (
            gateway(hosts.server, settings, tmp_path / "far") as exit_,
            gateway(hosts.client, entry, tmp_path / "near") as near,
        ):
            assert (exit_.error, near.error) == (None, None)
            assert eventually(lambda: near.idle_legs() >= 4)
            for host in (hosts.client, hosts.server):
                assert "initcwnd 300" in _routes(host)
                legs = _legs(host, 9100)
                assert legs
                # The congestion window from the route, the peer's receive window from its fixed buffer.
                assert all(leg["cwnd"] >= 300 and leg["snd_wnd"] > 1_000_000 for leg in legs)
        assert [_routes(host) for host in (hosts.client, hosts.server)] == before
        assert [Receipts(tmp_path / side).load().receipts for side in ("far", "near")] == [(), ()]


@pytest.mark.parametrize("window", [True, False], ids=["window", "without"])
def test_a_leg_has_its_own_congestion_control_and_keeps_its_window_over_a_rest(tmp_path: Path, window: bool):
    """Without the step each retransmission timeout of rest halves the window (RFC 5681, section 4.1)."""
    steps = Steps(early=False, window=window)

    def serve(connection: socket.socket) -> None:
        while size := connection.recv(1):
            connection.sendall(bytes(1_000_000 if size == b"L" else 1))

    with two_hosts() as hosts, ExitStack() as stack:
        usual = sysctl.read(hosts.client, "net.ipv4.tcp_congestion_control")
        congestion = "reno" if usual == "cubic" else "cubic"
        far = stack.enter_context(server(hosts.server, serve))
        leg_address, port = (hosts.addresses[4], 9100), free_port(hosts.client)
        door = leg_exit(leg_address, networks=(f"{CLIENT[4]}/32",), congestion=congestion)
        exit_ = Settings(exits=(door,), steps=steps, segments=300)
        stack.enter_context(gateway(hosts.server, exit_, tmp_path / "far"))
        listener = FixedListener("web", ("127.0.0.1", port), far.address, "exit")
        own = replace(peer(leg_address), congestion=congestion)
        entry = Settings(listeners=(listener,), peers=(own,), steps=steps, segments=300)
        near = stack.enter_context(gateway(hosts.client, entry, tmp_path / "near"))
        assert eventually(lambda: near.idle_legs() >= 4)
        for each in (hosts.client, hosts.server):
            assert {leg["congestion"] for leg in _legs(each, 9100)} == {congestion}
        client = stack.enter_context(connect(hosts.client, ("127.0.0.1", port)))
        for ask_for, size in ((b"L", 1_000_000), (b"S", 1)):
            client.sendall(ask_for)
            while size:
                size -= len(client.recv(size))
            if ask_for == b"L":
                assert eventually(lambda: (leg := _busiest(hosts.server)).get("lastsnd", 0) > 8 * leg["rto"])
        cwnd = _busiest(hosts.server)["cwnd"]
        assert cwnd >= 300 if window else cwnd < 300


def _legs(host: Namespace, port: int) -> list[dict]:
    """What ss(8) says of the connections with this port: the congestion control, and numbers by name."""
    command = command_inside(
        host, ["ss", "-tinOH", "state", "established", f"( sport = :{port} or dport = :{port} )"]
    )
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [
        {name: float(number) for name, number in re.findall(r"\b(\w+):([\d.]+)", line)}
        | {"congestion": re.search(r"\b(reno|cubic|bbr)\b", line)[1]}
        for line in shown.splitlines()
    ]


def _busiest(host: Namespace) -> dict:
    return max(_legs(host, 9100), key=lambda leg: leg.get("bytes_sent", 0))


def _routes(host: Namespace) -> str:
    command = command_inside(host, ["ip", "-4", "route"])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
