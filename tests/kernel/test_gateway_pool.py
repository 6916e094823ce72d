"""The pool of legs: ready before it is asked, refilled, sized by load, with other keys and addresses, wide."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.kernel.gateway_chain import (
    KEY,
    answer_reversed,
    ask,
    free_port,
    gateway,
    leg_exit,
    peer,
    server,
    until,
)

from ackward.gateway.settings import FixedListener, Limits, Settings, Steps
from ackward.kernel.namespaces import Namespace, command_inside
from ackward.lab.topology import CLIENT, two_hosts
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
            until(lambda: near.idle_legs() >= 3)
            descriptors = [near.open_descriptors(), exit_.open_descriptors()]
            for number in range(40):
                words = f"request {number}".encode()
                assert ask(host, ("127.0.0.1", port), words) == words[::-1]
            counters = near.counters
            assert counters["legs_used"] == 40
            assert counters["pool_empty"] == 0  # refilled ahead of demand
            assert counters["legs_failed"] == 0
            # Sized by load, then back; nothing is left open.
            until(lambda: near.idle_legs() <= 6, seconds=15)
            until(lambda: near.counters["connections"] == exit_.counters["connections"] == 0)
            until(lambda: near.open_descriptors() <= descriptors[0] + 8)
            until(lambda: exit_.open_descriptors() <= descriptors[1] + 8)
            assert near.counters["pipes_not_empty"] == exit_.counters["pipes_not_empty"] == 0


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
            until(lambda: near.status[0]["pools"]["exit"]["connected"])
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
            until(lambda: near.failures and exit_.failures)
            assert "does not know the key" in near.failures[0]["failed"]
            assert "nobody is known by the key" in exit_.failures[0]["failed"]
            with pytest.raises(ConnectionResetError):
                ask(host, ("127.0.0.1", port), b"anybody?")
            assert near.record()["end"] == "leg lost"
        assert exit_.counters["legs_ready"] == 0


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
            until(lambda: near.idle_legs() >= 4)
            for host in (hosts.client, hosts.server):
                assert "initcwnd 300" in _routes(host)
                windows = _windows(host, 9100)
                assert windows
                # The congestion window from the route, the peer's receive window from its fixed buffer.
                assert all(congestion >= 300 and receive > 1_000_000 for congestion, receive in windows)
        assert [_routes(host) for host in (hosts.client, hosts.server)] == before
        assert [Receipts(tmp_path / side).load().receipts for side in ("far", "near")] == [(), ()]


def _routes(host: Namespace) -> str:
    command = command_inside(host, ["ip", "-4", "route"])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _windows(host: Namespace, port: int) -> list[tuple[int, int]]:
    """(congestion window in segments, the peer's receive window in bytes) of the connections with this port."""
    command = command_inside(
        host, ["ss", "-tinH", "state", "established", f"( sport = :{port} or dport = :{port} )"]
    )
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [
        (int(congestion), int(window))
        for congestion, window in re.findall(r"cwnd:(\d+).*?snd_wnd:(\d+)", shown)
    ]
