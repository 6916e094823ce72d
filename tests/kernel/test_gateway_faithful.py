"""Faithful listeners: a client is connected only if its server is, and refused as its server's host refuses."""

from __future__ import annotations

import errno
import random
import socket
import subprocess
import time
from pathlib import Path

import pytest
from tests.kernel.gateway_chain import (
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
from tests.kernel.gateway_wires import (
    ADDRESSES,
    CLIENTS,
    NETWORKS,
    Three,
    routing,
    spoofed_syn,
)
from tests.polling import eventually

from ackward.gateway.faithful import read_syn
from ackward.gateway.settings import FixedListener, Limits, Settings, Steps, TransparentListener
from ackward.kernel.namespaces import call_inside
from ackward.lab.topology import two_hosts
from ackward.lab.wan import Wan

STEPS = Steps(early=False, window=False)


def faithful(**others) -> Settings:
    listeners = tuple(
        TransparentListener(f"all-{family}", network, "near", faithful=True)
        for family, network in NETWORKS.items()
    )
    return Settings(listeners=listeners, steps=STEPS, **others)


@pytest.mark.parametrize("workers", [1, 2])
def test_served_refused_and_unreachable_as_without_us(three: Three, tmp_path: Path, workers: int):
    before = routing(three.gateway)
    with gateway(three.gateway, faithful(workers=workers), tmp_path) as running:
        assert running.error is None
        for family, address in ADDRESSES.items():
            with server(three.server, answer_reversed, (address, 8000)) as far:
                assert ask(three.client, far.address, b"hello") == b"olleh"
            with pytest.raises(ConnectionRefusedError):
                connect(three.client, (address, 8001))
            with _no_way_to(three, address, family), pytest.raises(OSError) as failure:
                connect(three.client, (address, 8000))
            assert failure.value.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH)
        assert running.counters["accepted"] == 2
        assert running.counters["held_syns"] == 0
        assert {record["end"] for record in running.records} == {"done", "refused", "unreachable"}
    assert routing(three.gateway) == before


class _no_way_to:  # noqa: N801 - reads as a sentence
    def __init__(self, three: Three, address: str, family: int) -> None:
        self._command = ["ip", "-n", three.gateway.name, f"-{family}", "route"]
        self._route = ["unreachable", f"{address}/{32 if family == 4 else 128}"]

    def __enter__(self) -> None:
        subprocess.run([*self._command, "add", *self._route], check=True)

    def __exit__(self, *_) -> None:
        subprocess.run([*self._command, "del", *self._route], check=True)


def test_over_legs_the_client_is_connected_when_the_server_is(tmp_path: Path):
    """Entry and exit with 30 ms each way between them: the SYN waits for the whole path."""
    with two_hosts(Wan.of(30)) as hosts, server(hosts.server, answer_reversed) as far:
        leg_address, port = (hosts.addresses[4], 9100), free_port(hosts.client)
        exit_ = Settings(exits=(leg_exit(leg_address),), steps=STEPS)
        listeners = tuple(
            FixedListener(
                f"to-{target}", ("127.0.0.1", port + number), ("127.0.0.1", target), "exit", faithful=True
            )
            for number, target in enumerate((far.address[1], 9))  # 9: not on the exit's list
        )
        entry = Settings(listeners=listeners, peers=(peer(leg_address),), steps=STEPS)
        with (
            gateway(hosts.server, exit_, tmp_path / "far"),
            gateway(hosts.client, entry, tmp_path / "near") as near,
        ):
            assert eventually(lambda: near.idle_legs() >= 4)
            began = time.monotonic()
            with connect(hosts.client, ("127.0.0.1", port)) as client:
                assert 0.060 <= time.monotonic() - began < 0.120
                client.sendall(b"over")
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b"revo"
            with pytest.raises(ConnectionRefusedError):
                connect(hosts.client, ("127.0.0.1", port + 1))
            assert eventually(lambda: len(near.records) == 2)
            assert {record["end"] for record in near.records} == {"done", "forbidden"}


def test_killed_the_syns_pass_and_nothing_waits(three: Three, tmp_path: Path):
    """A fixed listener's port, served by another program after the gateway was killed: its queue is bypassed."""
    port = free_port(three.gateway)
    listener = FixedListener("web", ("127.0.0.1", port), ("127.0.0.1", 1), faithful=True)
    with gateway(three.gateway, Settings(listeners=(listener,), steps=STEPS), tmp_path) as running:
        running.kill()
    with server(three.gateway, answer_reversed, ("127.0.0.1", port)):
        with connect(three.gateway, ("127.0.0.1", port), 2) as client:
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b""
    with gateway(three.gateway, Settings(listeners=(listener,), steps=STEPS), tmp_path):
        pass  # it clears what the killed one left
    assert "NFQUEUE" not in routing(three.gateway)["mangle"]


def test_held_syns_are_bounded(three: Three, tmp_path: Path):
    """Towards an address where nobody is: each SYN waits for the limit, and no more wait than are allowed."""
    nowhere = ADDRESSES[4].rsplit(".", 1)[0] + ".77"
    limits = Limits(connect=0.5, early_pending=10)
    with gateway(three.gateway, faithful(limits=limits), tmp_path) as running:
        clients = [call_inside(three.client, socket.socket) for _ in range(30)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex((nowhere, 80))
        assert eventually(lambda: running.counters["early_refused"] >= 20)
        assert running.counters["held_syns"] <= 10
        for client in clients:
            client.close()
        assert eventually(lambda: running.counters["held_syns"] == 0)


def test_a_client_that_is_let_through_and_does_not_come_is_soon_forgotten(three: Three, tmp_path: Path):
    """As after a SYN from a spoofed address: it takes no room for as long as a server may take to answer."""
    limits = Limits(connect=60, early_wait=0.3)
    raw = call_inside(three.client, socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with server(three.server, answer_reversed, (ADDRESSES[4], 8000)) as far, raw:
        with gateway(three.gateway, faithful(limits=limits), tmp_path) as running:
            raw.sendto(spoofed_syn(random.Random(1), far.address), (far.address[0], 0))
            assert eventually(lambda: running.counters["early_begun"] == 1)
            assert running.record()["end"] == "unclaimed"
            assert running.counters["held_syns"] == 0


def test_a_listener_on_all_addresses_holds_nothing_that_is_only_forwarded(three: Three, tmp_path: Path):
    listeners = tuple(
        FixedListener(f"all-{family}", (host, 8000), (ADDRESSES[family], 8001), faithful=True)
        for family, host in ((4, "0.0.0.0"), (6, "::"))
    )
    own = {4: "10.78.1.1", 6: "fd78:1::1"}
    with gateway(three.gateway, Settings(listeners=listeners, steps=STEPS), tmp_path) as running:
        assert running.error is None
        for family, address in ADDRESSES.items():
            with server(three.server, answer_reversed, (address, 8000)) as beyond:
                assert ask(three.client, beyond.address, b"past it") == b"ti tsap"
                assert beyond.accepted[0][1][0] == CLIENTS[family]
        assert (running.counters["early_begun"], running.counters["accepted"]) == (0, 0)
        for family, address in ADDRESSES.items():
            with server(three.server, answer_reversed, (address, 8001)):
                assert ask(three.client, (own[family], 8000), b"through it") == b"ti hguorht"
            with pytest.raises(ConnectionRefusedError):
                connect(three.client, (own[family], 8000))
        assert running.counters["early_begun"] == 4


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_what_is_no_whole_syn_is_none(length: int):
    v4 = bytes.fromhex("4500002800000000400600000a0000010a0000021f401f4100000001000000005002000000000000")
    v6 = (
        bytes.fromhex("60000000001406400000000000000000000000000000000100000000000000000000000000000002")
        + v4[20:]
    )
    assert read_syn(v4) == (("10.0.0.1", 8000), ("10.0.0.2", 8001))
    assert read_syn(v6) == (("::1", 8000), ("::2", 8001))
    assert length >= 40 or read_syn(v4[:length]) is None
    assert read_syn(v6[:length]) is None
