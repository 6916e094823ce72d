"""pin_quickack on the real kernel: how late ACKs are on the wire, and what is taken back."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from tests.kernel.lab_hosts import program
from tests.kernel.pinning_hosts import Conversations, Wire, delayed, firewall
from tests.kernel.quickack_hosts import SLOW_MS, ip, routing
from tests.polling import eventually

import ackward
from ackward.errors import Refused
from ackward.kernel import marks, own_socket
from ackward.kernel.namespaces import call_inside, command_inside
from ackward.kernel.proc_tcp import delayed_acks
from ackward.kernel.settings import ticks_per_second
from ackward.lab.topology import TwoHosts
from ackward.loop.pinning import Means
from ackward.model.plan import State
from ackward.remedies import receipts

ROUNDS = 10_000
TICK_MS = 1e3 / (ticks_per_second() or 100)


@pytest.mark.parametrize(
    ("family", "mapped", "rounds"),
    [(4, False, ROUNDS), (6, False, 500), (4, True, 500)],
    ids=["4", "6", "mapped"],
)
def test_a_marked_socket_delays_no_ack_and_another_does(
    hosts: TwoHosts, family: int, mapped: bool, rounds: int
) -> None:
    with (
        Conversations(hosts, family, mapped=mapped) as pinned,
        Conversations(hosts, family, mapped=mapped) as plain,
    ):
        _, sock = pinned.open()
        plain.open()
        pinned.rounds(5)  # an open connection, in the middle of a standoff
        flags = [fcntl.fcntl(sock, what) for what in (fcntl.F_GETFL, fcntl.F_GETFD)]
        found = ackward.pin_quickack(sock)
        assert (found.means, found.delay_ns) == (Means.MARK, 0), found
        assert [fcntl.fcntl(sock, what) for what in (fcntl.F_GETFL, fcntl.F_GETFD)] == flags
        before = delayed(hosts)
        with Wire(hosts.server) as wire:
            pinned.rounds(rounds)
            late = wire.lateness(pinned.port)
        assert ackward.status()[0].state is State.IN_FORCE
        assert len(late) >= 2 * rounds
        # The kernel counts every ACK that a timer had to send: not one in all the rounds.
        assert delayed(hosts) == before
        assert max(late) < SLOW_MS
        with Wire(hosts.server) as wire:
            plain.rounds(10)
            assert sum(one > SLOW_MS for one in wire.lateness(plain.port)) >= 8
        found.close()
        with Wire(hosts.server) as wire:
            pinned.rounds(10)
            assert sum(one > SLOW_MS for one in wire.lateness(pinned.port)) >= 8


def test_a_bounded_socket_delays_three_ticks_and_another_more(hosts: TwoHosts) -> None:
    at_once = 200
    with Conversations(hosts) as pinned, Conversations(hosts) as plain:
        pins = [ackward.pin_quickack(pinned.open()[1], change_host=False) for _ in range(at_once)]
        plain.open()
        assert {pin.means for pin in pins} == {Means.DELACK_MAX}
        assert pins[0].delay_ns == pytest.approx(3 * TICK_MS * 1e6, rel=0.01)
        with Wire(hosts.server) as wire:
            pinned.rounds(ROUNDS // at_once)
            late = wire.lateness(pinned.port)
        with Wire(hosts.server) as wire:
            plain.rounds(10)
            unpinned = sorted(wire.lateness(plain.port))
        held = sorted(one for one in late if one > TICK_MS)  # the others went along with an answer
        assert len(held) > ROUNDS / 2
        # A virtual machine loses ticks now and then, and every timer of the kernel is late by them.
        assert statistics.median(held) < 3 * TICK_MS + 1
        assert held[len(held) * 999 // 1000] < 10 * TICK_MS
        assert unpinned[-8] >= 10 * TICK_MS
        for pin in pins:
            pin.close()
        with Wire(hosts.server) as wire:
            pinned.rounds(2)
            assert statistics.median(sorted(wire.lateness(pinned.port))[-at_once:]) > 9 * TICK_MS


@pytest.mark.parametrize("means", [Means.MARK, Means.DELACK_MAX])
def test_accepted_sockets_inherit(hosts: TwoHosts, means: Means) -> None:
    with Conversations(hosts) as talk:
        pinned = ackward.pin_quickack(talk.listener, means=means)
        assert pinned.inherits
        talk.open()
        before = delayed(hosts)
        with Wire(hosts.server) as wire:
            talk.rounds(20)
            late = wire.lateness(talk.port)
        if means is Means.MARK:
            assert delayed(hosts) == before
        else:
            # One tick more than is armed: a virtual machine that misses a tick runs its timers at the next one.
            assert statistics.median(sorted(late)[-15:]) < 4 * TICK_MS + 1
        accepted = ackward.pin_quickack(talk.pairs[0][1])
        assert accepted.means is Means.MARK


def test_before_connect(hosts: TwoHosts) -> None:
    """The end that connects is pinned: it is the server that writes in two pieces."""
    with Conversations(hosts) as talk:
        client = call_inside(hosts.client, socket.socket, socket.AF_INET, socket.SOCK_STREAM)
        with closing(client), ackward.pin_quickack(client) as pinned:
            assert pinned.means is Means.MARK
            client.connect((hosts.server_address(4), talk.port))
            server, _ = talk.listener.accept()
            talk.pairs.append((server, client))
            before = delayed_acks(hosts.client)
            talk.rounds(50)
            assert delayed_acks(hosts.client) == before
            server.close()


def test_a_route_that_has_quickack_needs_nothing(hosts: TwoHosts, store: receipts.Receipts) -> None:
    with Conversations(hosts) as talk:
        _, sock = talk.open()
        route = ("route", "change", "198.18.0.0/24", "dev", "lab0", "src", "198.18.0.2")
        ip(hosts.server, *route, "quickack", "1")
        try:
            pinned = ackward.pin_quickack(sock)
            assert (pinned.means, pinned.delay_ns) == (Means.ROUTE, 0)
            assert store.load().receipts == ()
        finally:
            ip(hosts.server, *route, "proto", "kernel", "scope", "link")


def test_a_connection_that_stays_inside_the_host(store: receipts.Receipts) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sock,
    ):
        with pytest.raises(Refused, match="table local"):
            ackward.pin_quickack(sock, means="mark")
        pinned = ackward.pin_quickack(sock)
        assert pinned.means is Means.DELACK_MAX
        assert "not by mark: the connection stays inside this host" in pinned.why
    assert store.load().receipts == ()


def test_it_stands_in_status_and_an_undo_is_respected(hosts: TwoHosts) -> None:
    with Conversations(hosts) as talk:
        _, sock = talk.open()
        pinned = ackward.pin_quickack(sock)
        (status,) = ackward.status()
        assert status.receipt.id == pinned.receipt
        assert status.state is State.IN_FORCE, status
        assert "pinned sockets of process" in status.receipt.scope.words
        assert ackward.undo(pinned.receipt)[0].complete
        with Wire(hosts.server) as wire:
            talk.rounds(10)
            # What lies beneath the mark holds on.
            assert statistics.median(sorted(wire.lateness(talk.port))[-8:]) < 3 * TICK_MS + 1
        again = ackward.pin_quickack(talk.open()[1])
        assert again.means is Means.DELACK_MAX
        assert "was undone" in again.why
        assert ackward.status() == []


def test_bits_that_the_firewall_uses_are_left_to_it(hosts: TwoHosts) -> None:
    first, second = marks.CANDIDATES[:2]
    used = f"table inet t {{ chain c {{ meta mark & {first:#x} == {first:#x} accept; }}; }};"
    everything = "table inet t { map m { type mark : verdict; }; chain c { meta mark vmap @m; }; };"
    with Conversations(hosts) as talk:
        _, sock = talk.open()
        with firewall(hosts.server, everything):
            with pytest.raises(Refused, match="no bit of the packet mark is free"):
                ackward.pin_quickack(sock, means="mark")
            assert own_socket.mark(sock) == 0
        with firewall(hosts.server, used), ackward.pin_quickack(sock):
            assert own_socket.mark(sock) == second


def test_other_bits_of_the_mark_stay(hosts: TwoHosts) -> None:
    with Conversations(hosts) as talk:
        _, sock = talk.open()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x42)
        with ackward.pin_quickack(sock) as pinned:
            assert own_socket.mark(sock) == 0x42 | marks.CANDIDATES[0]
            with ackward.pin_quickack(sock) as again:
                assert again.means is pinned.means is Means.MARK
            assert own_socket.mark(sock) == 0x42 | marks.CANDIDATES[0]
        assert own_socket.mark(sock) == 0x42


#: Pins a listening socket and says by what; the receipts lie in a directory of their own.
PINNER = """
import socket, sys
from pathlib import Path
import ackward
from ackward.remedies import receipts
receipts.DIRECTORY = Path(sys.argv[1])
listener = socket.create_server(("0.0.0.0", 0))
try:
    print(ackward.pin_quickack(listener, means=sys.argv[2] if len(sys.argv) > 2 else None).means, flush=True)
except ackward.errors.PrivilegeMissing as error:
    print("refused:", error.missing, flush=True)
sys.stdin.read()
"""


def test_killed_by_9_all_is_taken_back(hosts: TwoHosts, store: receipts.Receipts) -> None:
    before = routing(hosts.server)
    with program(hosts.server, [sys.executable, "-c", PINNER, str(store.directory)]) as process:
        assert process.stdout.readline() == "mark\n"
        assert routing(hosts.server) != before
        (receipt,) = store.load().receipts
        os.kill(receipt.scope.pid, signal.SIGKILL)
        assert eventually(lambda: store.load().receipts == ())
        assert routing(hosts.server) == before


def test_processes_that_start_together_share_the_bit(hosts: TwoHosts, store: receipts.Receipts) -> None:
    command = command_inside(hosts.server, [sys.executable, "-c", PINNER, str(store.directory)])
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(4)
        ]
        assert [process.stdout.readline() for process in started] == ["mark\n"] * 4
        bits = {
            change.bit
            for receipt in store.load().receipts
            for change in receipt.changes
            if change.kind == "mark-rule-added"
        }
        assert len(bits) == 1
        first = started.pop(0)
        first.communicate()
        # One rule goes with its process; the others serve the same bit.
        assert eventually(lambda: len(store.load().receipts) == 3)
        assert ip(hosts.server, "rule").count("fwmark") == 3
        for process in started:
            process.communicate()
    assert eventually(lambda: store.load().receipts == ())


@pytest.mark.parametrize(
    ("means", "said"),
    [((), "delack-max\n"), (("mark",), "refused: changing routes and sockets needs CAP_NET_ADMIN\n")],
)
def test_without_the_capability(hosts: TwoHosts, tmp_path: Path, means: tuple[str, ...], said: str) -> None:
    drop = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"]
    with program(hosts.server, [*drop, sys.executable, "-c", PINNER, str(tmp_path), *means]) as process:
        assert process.stdout.readline() == said, process.stderr.read()


def test_reading_through_the_pin_lets_the_ack_go(hosts: TwoHosts) -> None:
    with Conversations(hosts) as talk:
        client, server = talk.open()
        talk.rounds(5)
        pinned = ackward.pin_quickack(server, means=Means.REARM)
        assert not pinned.inherits
        before = delayed(hosts)

        def serve() -> None:
            for _ in range(200):
                got = 0
                while got < 300:
                    got += len(pinned.recv(300 - got))
                server.sendall(b"a" * 100)

        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(200):
            client.send(b"h" * 100)
            client.send(b"b" * 200)
            assert len(client.recv(100, socket.MSG_WAITALL)) == 100
        thread.join()
        assert delayed(hosts) - before <= 2  # a reader that was scheduled late


def test_a_socket_of_another_namespace_is_pinned_there(hosts: TwoHosts) -> None:
    here = subprocess.run(["ip", "rule"], capture_output=True, text=True, check=True).stdout
    with Conversations(hosts) as talk, ackward.pin_quickack(talk.listener):
        assert "fwmark" in ip(hosts.server, "rule")
        assert subprocess.run(["ip", "rule"], capture_output=True, text=True, check=True).stdout == here
