"""Several worker processes, and one that is lost: its own clients are reset, the others' go on, another takes its place."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from tests.kernel.gateway_chain import (
    Running,
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
from tests.kernel.gateway_wires import ADDRESSES, NETWORKS, Three, routing
from tests.polling import eventually

from ackward.gateway.settings import FixedListener, Settings, Steps, TransparentListener
from ackward.kernel.namespaces import Namespace
from ackward.remedies.receipts import Receipts


def kill_worker(running: Running, number: int) -> None:
    os.kill(running.workers[number], signal.SIGKILL)


def settle(running: Running, lost: int) -> None:
    """Until so many were replaced; the workers' PIDs are those of now."""
    assert eventually(lambda: len(running.lost) >= lost)
    for words in running.lost:
        assert "its connections were reset; replaced by pid=" in words
        number, pid = (int(words.split(f"{key}=")[1].split()[0]) for key in ("number", "by pid"))
        running.workers[number] = pid


def is_reset(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("early", [False, True], ids=["accept", "syn"])
def test_its_clients_are_reset_the_others_go_on_and_it_is_replaced(
    host: Namespace, tmp_path: Path, early: bool
):
    before = routing(host)
    with server(host, answer_reversed) as far:
        port = free_port(host)
        listener = FixedListener("web", ("127.0.0.1", port), far.address)
        settings = Settings(listeners=(listener,), steps=Steps(early=early, window=False), workers=2)
        with gateway(host, settings, tmp_path) as running:
            clients = [connect(host, ("127.0.0.1", port)) for _ in range(40)]
            assert eventually(lambda: len(far.accepted) == 40)
            share = running.status[0]["connections"]
            assert 0 < share < 40
            kill_worker(running, 0)
            settle(running, 1)
            assert eventually(lambda: sum(map(is_reset, clients)) == share)
            for client in clients:
                if not is_reset(client):
                    client.setblocking(True)
                    client.sendall(b"still")
                    client.shutdown(socket.SHUT_WR)
                    assert read_all(client) == b"llits"
                client.close()
            # Both serve again, and both hear of SYNs.
            again = [connect(host, ("127.0.0.1", port)) for _ in range(40)]
            assert eventually(lambda: sum(worker["connections"] for worker in running.status) == 40)
            assert all(worker["connections"] for worker in running.status)
            for client in again:
                client.sendall(b"again")
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b"niaga"
                client.close()
            counters = running.counters
            assert counters["workers_lost"] == 1
            assert counters["early_claimed"] == (80 if early else 0)
    assert routing(host) == before


def test_whoever_is_lost_again_and_again_ends_the_gateway(host: Namespace, tmp_path: Path):
    port = free_port(host)
    listener = FixedListener("web", ("127.0.0.1", port), ("127.0.0.1", 1))
    settings = Settings(listeners=(listener,), steps=Steps(window=False), workers=2)
    with gateway(host, settings, tmp_path) as running:
        for loss in range(1, 6):
            kill_worker(running, loss % 2)
            settle(running, loss)
        kill_worker(running, 0)
        assert running.process.wait(20) == 3
    with pytest.raises(ConnectionRefusedError):
        connect(host, ("127.0.0.1", port))


def test_the_first_worker_of_a_transparent_faithful_gateway_is_replaced_and_nothing_is_left(
    three: Three, tmp_path: Path
):
    before = routing(three.gateway)
    listeners = tuple(
        TransparentListener(f"all-{family}", network, "near", faithful=True)
        for family, network in NETWORKS.items()
    )
    settings = Settings(listeners=listeners, steps=Steps(window=False), workers=2)
    with gateway(three.gateway, settings, tmp_path) as running:
        during = routing(three.gateway)
        for loss in (1, 2):
            kill_worker(running, 0)
            settle(running, loss)
            for family, address in ADDRESSES.items():
                with server(three.server, answer_reversed, (address, 8000 + loss)) as far:
                    assert ask(three.client, far.address, b"hello") == b"olleh", family
                with pytest.raises(ConnectionRefusedError):
                    connect(three.client, (address, 7999))
        assert running.counters["accepted"] == 4
        after = routing(three.gateway)
        assert {name: after[name] for name in after if name != "queues"} == {
            name: during[name] for name in during if name != "queues"
        }
    assert routing(three.gateway) == before
    assert Receipts(tmp_path).load().receipts == ()


def test_an_exit_s_worker_is_replaced_and_the_pool_recovers(host: Namespace, tmp_path: Path):
    leg_port, port = free_port(host), free_port(host)
    steps = Steps(early=False, window=False)
    with server(host, answer_reversed) as far:
        exit_settings = Settings(exits=(leg_exit(("127.0.0.1", leg_port)),), steps=steps)
        listener = FixedListener("web", ("127.0.0.1", port), far.address, "exit")
        entry_settings = Settings(listeners=(listener,), peers=(peer(("127.0.0.1", leg_port)),), steps=steps)
        with gateway(host, exit_settings, tmp_path / "far") as exit_:
            with gateway(host, entry_settings, tmp_path / "near") as entry:
                assert eventually(lambda: entry.idle_legs() == 4)
                kill_worker(exit_, 0)
                settle(exit_, 1)
                assert eventually(lambda: entry.idle_legs() == 4)
                assert ask(host, ("127.0.0.1", port), b"again") == b"niaga"


@pytest.mark.parametrize(("workers", "joins"), [(1, True), (2, False)])
def test_legs_join_an_exit_of_one_worker_and_the_entry_s_status_says_so(
    host: Namespace, tmp_path: Path, workers: int, joins: bool
):
    """Without joining every leg says HELLO, so one that the pool does not have takes two round trips more."""
    leg_port, port = free_port(host), free_port(host)
    steps = Steps(early=True, pool=False, window=False)
    with server(host, answer_reversed) as far:
        exit_settings = Settings(exits=(leg_exit(("127.0.0.1", leg_port)),), steps=steps, workers=workers)
        listener = FixedListener("web", ("127.0.0.1", port), far.address, "exit")
        entry_settings = Settings(listeners=(listener,), peers=(peer(("127.0.0.1", leg_port)),), steps=steps)
        with (
            gateway(host, exit_settings, tmp_path / "far"),
            gateway(host, entry_settings, tmp_path / "near") as entry,
        ):
            assert eventually(lambda: entry.status[0]["pools"]["exit"]["connected"])
            assert entry.status[0]["pools"]["exit"]["joins"] is joins
            for _ in range(8):
                assert ask(host, ("127.0.0.1", port), b"each") == b"hcae"
            assert entry.counters["legs_failed"] == 0
