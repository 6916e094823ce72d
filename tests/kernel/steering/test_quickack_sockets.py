"""Quickack for single sockets on the real kernel: by a bit of the mark, and by a cap on the delay; what is beside stalls on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pytest
from tests.kernel.pinning_hosts import firewall
from tests.kernel.quickack_hosts import SLOW_MS, Conversation, ip, routing, wire
from tests.kernel.steering_hosts import BESIDE, CGROUP, IN_SCOPE, moved_into, pair

from ackward import remedies
from ackward.cli import main as cli
from ackward.errors import Refused
from ackward.kernel import marks, own_socket
from ackward.kernel.background import start_time_of
from ackward.kernel.namespaces import Namespace, call_inside, command_inside, temporary
from ackward.loop.fixing import plan_quickack
from ackward.model.pins import MarkRuleAdded
from ackward.model.plan import Plan, Receipt, Refusal, State
from ackward.model.scopes import SocketScope
from ackward.remedies.pin.apply import scope_of_this_process
from ackward.remedies.receipts import Receipts

QUICKACK = remedies.load("quickack")
SERVER = "198.19.0.1"


@pytest.fixture
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    with temporary("client") as client, temporary("server") as server:
        wire(server, client, "w0", 0)
        yield client, server


def this_process(**limits: object) -> SocketScope:
    return SocketScope(pid=os.getpid(), start_time=start_time_of(os.getpid()), **limits)


def planned(host: Namespace, scope: SocketScope) -> Plan:
    plan = QUICKACK.plan(host, scope)
    assert isinstance(plan, Plan), plan
    return plan


def apply(plan: Plan, store: Receipts) -> Receipt:
    receipt = QUICKACK.apply(plan, store)
    assert receipt is not None
    return receipt


def bits(plan: Plan | Receipt) -> set[int]:
    return {change.bit for change in plan.changes if isinstance(change, MarkRuleAdded)}


# An unmodified program that answers each request of 300 bytes, on any number of connections.
PROGRAM = """
import socket, sys, threading
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
def answer(connection):
    while connection.recv(300, socket.MSG_WAITALL):
        connection.sendall(b"a" * 100)
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
"""


@contextmanager
def program(host: Namespace, port: int, place: Path | None = None) -> Iterator[int]:
    """That program in a host, and in a cgroup; gives its PID."""
    command = command_inside(host, [sys.executable, "-S", "-c", PROGRAM, SERVER, str(port)])
    with moved_into(place) if place else nullcontext():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "listening\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


class Asking(Conversation):
    """The client's half of a conversation: the server is a program of its own."""

    def __init__(self, client: Namespace, port: int) -> None:
        self._client = call_inside(client, socket.create_connection, (SERVER, port), 10)

    def __exit__(self, *_: object) -> None:
        self._client.close()


@pytest.mark.parametrize("by", ["cgroup", "pid"])
def test_a_service_acknowledges_at_once_and_the_one_beside_it_does_not(
    by: str, hosts: tuple[Namespace, Namespace], store: Receipts
) -> None:
    client, server = hosts
    before = routing(server)
    with (
        program(server, IN_SCOPE, CGROUP) as pid,
        program(server, BESIDE),
        Asking(client, IN_SCOPE) as early,
        Asking(client, BESIDE) as beside,
    ):
        assert early.median(5) > SLOW_MS
        plan = (
            plan_quickack(cgroup=CGROUP.name, port="7300-7310") if by == "cgroup" else plan_quickack(pid=pid)
        )
        assert plan.namespace.inode == server.inode  # where the service is, unasked
        assert any("table local" in note for note in plan.notes)
        receipt = apply(plan, store)
        assert early.median() < 1
        with Asking(client, IN_SCOPE) as born:
            assert born.median() < 1
            assert beside.median(5) > SLOW_MS
            assert QUICKACK.status(receipt, store).state is State.IN_FORCE
            assert QUICKACK.undo(receipt, store).complete
            assert born.median(5) > SLOW_MS
        assert early.median(5) > SLOW_MS
    assert routing(server) == before


def test_a_cap_shortens_the_wait_and_touches_no_route(
    hosts: tuple[Namespace, Namespace], store: Receipts
) -> None:
    client, server = hosts
    before = routing(server)
    with (
        Conversation(client, server, SERVER, IN_SCOPE) as capped,
        Conversation(client, server, SERVER, BESIDE) as beside,
    ):
        assert capped.median(5) > SLOW_MS
        plan = plan_quickack(netns=server.name, port=IN_SCOPE, cap=0.008)
        assert plan.request == ("quickack", "--port", str(IN_SCOPE), "--cap", "8ms")
        receipt = apply(plan, store)
        # 8 ms and up to two ticks of 4 ms (at 250 Hz); 12 ms where nothing else runs.
        assert 4 < capped.median(21) < 17
        assert beside.median(5) > SLOW_MS
        assert routing(server) == before
        assert QUICKACK.undo(receipt, store).complete
        assert capped.median(5) > SLOW_MS


class TestMarks:
    """Bits of the packet mark: whose they are, and who has the last word."""

    def test_a_bit_in_use_is_never_chosen(self, host: Namespace, store: Receipts) -> None:
        first, second, third, fourth, fifth = marks.CANDIDATES[:5]
        with firewall(
            host, f"table inet t {{ chain c {{ meta mark & {first:#x} == {first:#x} accept; }}; }};"
        ):
            ip(host, "rule", "add", "fwmark", f"{second:#x}/{second:#x}", "lookup", "1000")
            # The whole mark is compared: the bits of its number are claimed.
            ip(host, "rule", "add", "fwmark", "0xca", "lookup", "1000")
            receipt = apply(planned(host, this_process(ports=(1, 1))), store)
            assert bits(receipt) == {third}
            assert bits(planned(host, this_process())) == {fourth}
            pinned = remedies.load("pin").plan(host, scope_of_this_process())
            assert isinstance(pinned, Plan)
            assert bits(pinned) == {fourth}  # a bit that a hook sets is not shared with pins
            apply(planned(host, this_process(ports=(2, 2))), store)
            assert bits(planned(host, this_process())) == {fifth}

    def test_a_host_without_a_free_bit_is_refused(self, host: Namespace) -> None:
        everything = "table inet t { map m { type mark : verdict; }; chain c { meta mark vmap @m; }; };"
        with firewall(host, everything):
            refusal = QUICKACK.plan(host, this_process())
        assert isinstance(refusal, Refusal)
        assert "no bit of the packet mark is free" in refusal.reason
        assert "--cap" in refusal.next_step

    def test_of_two_plans_for_one_bit_the_second_is_refused(self, host: Namespace, store: Receipts) -> None:
        plans = [planned(host, this_process(ports=(port, port))) for port in (1, 2)]
        apply(plans[0], store)
        after = routing(host)
        with pytest.raises(Refused, match="taken between plan and apply"):
            apply(plans[1], store)
        assert routing(host) == after

    def test_a_rule_that_takes_the_traffic_first_is_refused(self, host: Namespace) -> None:
        ip(host, "route", "add", "default", "dev", "lo", "table", "1000")
        ip(host, "rule", "add", "lookup", "1000", "pref", "100")
        refusal = QUICKACK.plan(host, this_process())
        assert isinstance(refusal, Refusal)
        assert "takes the traffic before ours" in refusal.reason

    def test_the_programs_own_bits_survive_and_its_word_is_the_last(
        self, host: Namespace, store: Receipts
    ) -> None:
        with ExitStack() as stack:

            def opened() -> socket.socket:
                connecting, _ = (stack.enter_context(end) for end in pair(host, "127.0.0.1", IN_SCOPE))
                return connecting

            def says(sock: socket.socket, mark: int) -> None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)

            marked, adding, overwriting = (opened() for _ in range(3))
            says(marked, 0x42)
            first = apply(planned(host, this_process()), store)
            second = apply(planned(host, this_process(ports=(IN_SCOPE, IN_SCOPE))), store)
            (one,), (other,) = bits(first), bits(second)
            born = opened()
            both = one | other
            assert [own_socket.mark(sock) for sock in (marked, adding, born)] == [0x42 | both, both, both]
            says(adding, both | 0x41)
            says(born, one | 0x43)
            says(overwriting, 0x7)
            for receipt, overruled in ((first, 1), (second, 2)):
                status = QUICKACK.status(receipt, store)
                assert f"{overruled} decided by their program since" in status.details[-2].words
            assert QUICKACK.undo(first, store).complete
            assert [own_socket.mark(sock) for sock in (marked, adding)] == [0x42 | other, 0x41 | other]
            assert QUICKACK.undo(second, store).complete
            assert [own_socket.mark(sock) for sock in (marked, adding, born, overwriting)] == [
                0x42,
                0x41,
                0x43,
                0x7,
            ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cap", "8ms"], "name --port, --to, --cgroup or --pid"),
        (["--cap", "8", "--port", "7000"], "is no duration"),
        (["--cap", "0ms", "--port", "7000"], "no delay at all"),
        (["--cap", "1us", "--port", "7000"], "two ticks of its clock"),
        (["--cap", "1s", "--port", "7000"], "to 200 ms (TCP_DELACK_MAX)"),
        (["--cap", "1h", "--port", "7000"], "to 200 ms (TCP_DELACK_MAX)"),
        (["--port", "7000-7010"], "is a range, and a rule is for one port"),
        (["--port", "7010-7000", "--pid", str(os.getpid())], "turned round"),
        (["--pid", "999999999"], "there is no process 999999999"),
        (["--cgroup", "no/such"], "there is no cgroup no/such"),
    ],
)
def test_bad_requests(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fix", "quickack", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
