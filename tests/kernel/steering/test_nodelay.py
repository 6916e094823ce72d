"""Nodelay on the real kernel: live connections, new ones, every selector of a scope, and programs that never notice."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from tests.kernel.quickack_hosts import SLOW_MS, Conversation, wire
from tests.kernel.steered_programs import Answers, Program
from tests.kernel.steering_hosts import CGROUP, moved_into, nodelay, pair
from tests.polling import eventually

from ackward import remedies
from ackward.errors import Refused
from ackward.kernel.background import start_time_of
from ackward.kernel.namespaces import Namespace, call_inside, resolve, temporary
from ackward.loop.fixing import plan_nodelay
from ackward.model.changes import OpenSocketsSet, SocketOption, SocketsSteered
from ackward.model.plan import Ending, Plan, Receipt, State
from ackward.model.scopes import SocketScope
from ackward.remedies.receipts import Receipts
from ackward.remedies.steering import probing
from ackward.remedies.steering.apply import Steering
from ackward.remedies.steering.hook import Hook, hooks

T = TypeVar("T")

NODELAY = remedies.load("nodelay")


def this_process() -> SocketScope:
    return SocketScope(pid=os.getpid(), start_time=start_time_of(os.getpid()))


def apply(host: Namespace, scope: SocketScope, store: Receipts) -> Receipt:
    plan = NODELAY.plan(host, scope)
    assert isinstance(plan, Plan), plan
    receipt = NODELAY.apply(plan, store)
    assert receipt is not None
    return receipt


def hook(receipt: Receipt) -> Hook:
    return next(found for found in hooks() if found.receipt == receipt.id)


def test_a_live_stall_ends_within_one_round_and_the_program_never_notices(store: Receipts) -> None:
    with temporary("client") as client, temporary("server") as server:
        wire(server, client, "w0", 0)
        with (
            Answers(server, "198.19.0.1", 7300) as answers,
            Program(["nsenter", f"--net={client.path}"], "198.19.0.1", 7300) as program,
        ):
            before = program.ask("state")
            assert sorted(program.round() for _ in range(7))[3] > SLOW_MS
            plan = plan_nodelay(pid=program.process.pid)
            assert plan.namespace.inode == client.inode  # that of the process, unasked
            receipt = NODELAY.apply(plan, store)
            assert receipt is not None
            assert max(program.round() for _ in range(20)) < SLOW_MS
            assert program.ask("state") == before  # no descriptor closed or opened, no flag changed
            program.ask("close")
            assert eventually(
                lambda: answers.ended == 1
            )  # the FIN is not kept back by a copy that somebody holds
            assert program.ask("connect") == 1  # from birth
            assert max(program.round() for _ in range(5)) < SLOW_MS
            assert NODELAY.undo(receipt, store).complete
            assert sorted(program.round() for _ in range(7))[3] > SLOW_MS


def test_traffic_beside_the_scope_stalls_as_before(store: Receipts) -> None:
    with temporary("client") as client, temporary("server") as server:
        wire(server, client, "w0", 0)
        with (
            Conversation(client, server, "198.19.0.1", 7300) as stalling,
            Conversation(client, server, "198.19.0.1", 7301) as control,
        ):
            receipt = apply(client, SocketScope(ports=(7300, 7300)), store)
            assert stalling.median() < SLOW_MS / 4
            assert control.median() > SLOW_MS
            counters = hook(receipt).counters()
            assert counters is not None
            assert counters.seen == 0


BIRTHS = {
    "port": (SocketScope(ports=(7300, 7300)), ("127.0.0.1", 7300), ("127.0.0.1", 7301)),
    "range": (SocketScope(ports=(7300, 7302)), ("::1", 7302), ("::1", 7303)),
    "IPv4": (SocketScope(to="127.0.0.0/8"), ("127.0.0.1", 7300), ("::1", 7300)),
    "IPv4-mapped": (SocketScope(to="127.0.0.1/32"), ("::ffff:127.0.0.1", 7300), ("::1", 7300)),
    "IPv6": (SocketScope(to="::1/128"), ("::1", 7300), ("::ffff:127.0.0.1", 7300)),
    "all of IPv6": (SocketScope(to="::/0"), ("::1", 7300), ("::ffff:127.0.0.1", 7300)),
    "both": (SocketScope(ports=(7300, 7300), to="127.0.0.0/8"), ("127.0.0.1", 7300), ("::1", 7300)),
}


@pytest.mark.parametrize("case", BIRTHS.values(), ids=list(BIRTHS))
def test_connections_of_the_scope_and_no_others(
    case: tuple[SocketScope, tuple[str, int], tuple[str, int]], host: Namespace, store: Receipts
) -> None:
    """Open before, and from birth; the kernel's count of what it saw is exact."""
    scope, inside, outside = case
    with contextlib.ExitStack() as stack:

        def opened(end: tuple[str, int], where: Namespace = host) -> list[bool]:
            ends = [stack.enter_context(one) for one in pair(where, *end)]
            found.append(ends)
            return [nodelay(one) for one in ends]

        found: list[list[socket.socket]] = []
        assert opened(inside) == opened(outside) == [False, False]
        receipt = apply(host, scope, store)
        assert [[nodelay(end) for end in ends] for ends in found] == [[True, True], [False, False]]
        assert opened(inside) == [True, True]
        assert opened(outside) == [False, False]
        assert opened(inside, stack.enter_context(temporary("other"))) == [False, False]
        counters = hook(receipt).counters()
        assert counters is not None
        assert (counters.seen, counters.set, counters.failed) == (2, 2, 0)
        outcome = NODELAY.undo(receipt, store)
        assert outcome.complete, outcome
        assert "4 open connections" in outcome.details[0].words
        assert not any(nodelay(end) for ends in found for end in ends)


def test_a_cgroup_and_no_other(host: Namespace, store: Receipts) -> None:
    below = CGROUP / "below"
    below.mkdir()
    try:
        with contextlib.ExitStack() as stack:

            def opened(place: Path | None) -> list[bool]:
                with moved_into(place) if place else contextlib.nullcontext():
                    ends = [stack.enter_context(end) for end in pair(host, "127.0.0.1", 7300)]
                return [nodelay(end) for end in ends]

            apply(host, SocketScope(cgroup=f"/{CGROUP.name}"), store)
            assert opened(CGROUP) == opened(below) == [True, True]
            assert opened(None) == [False, False]
    finally:
        below.rmdir()


def test_a_process_and_no_other(host: Namespace, store: Receipts) -> None:
    """What a listener accepts that was there before, what the process connects, but not what another one does."""
    with (
        call_inside(host, socket.create_server, ("127.0.0.1", 7300)) as listener,
        contextlib.ExitStack() as stack,
    ):
        apply(host, this_process(), store)
        with Program(["nsenter", f"--net={host.path}"], "127.0.0.1", 7300) as other:
            accepted = stack.enter_context(listener.accept()[0])
            assert nodelay(accepted)
            assert not nodelay(listener)
            mine = stack.enter_context(call_inside(host, socket.create_connection, ("127.0.0.1", 7300)))
            assert nodelay(mine)
            # The other process's end: in sight of no program here but its own.
            answer = threading.Thread(target=lambda: listener.accept()[0].close())
            answer.start()
            assert other.ask("connect") == 0
            answer.join()


def test_a_program_that_decides_itself_is_not_undone(host: Namespace, store: Receipts) -> None:
    def decide(connection: socket.socket, value: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, value)

    with contextlib.ExitStack() as stack:

        def opened() -> socket.socket:
            ends = [stack.enter_context(end) for end in pair(host, "127.0.0.1", 7300)]
            return ends[0]

        before, after, off, open_ours = opened(), opened(), opened(), opened()
        decide(before, 1)
        receipt = apply(host, SocketScope(ports=(7300, 7300)), store)
        born, born_ours = opened(), opened()
        decide(after, 1)
        decide(born, 1)
        decide(off, 0)
        counters = hook(receipt).counters()
        assert counters is not None
        assert counters.overruled == 3
        assert NODELAY.undo(receipt, store).complete
        assert [nodelay(one) for one in (before, after, born)] == [True] * 3
        assert [nodelay(one) for one in (off, open_ours, born_ours)] == [False] * 3


CONTAINED = """
import socket
server = socket.create_server(("127.0.0.1", 7300))
open_before = [socket.create_connection(("127.0.0.1", 7300)), server.accept()[0]]
print("ready", flush=True)
input()
born = socket.create_connection(("127.0.0.1", 7300))
accepted = server.accept()[0]
ends = (*open_before, born, accepted)
print(*[end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in ends], flush=True)
input()
"""


def test_in_a_container(store: Receipts) -> None:
    """Its own network, process and mount namespaces, found by its cgroup alone."""
    unshare = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    script = f"ip link set lo up; exec {sys.executable} -S -c '{CONTAINED}'"
    with moved_into(CGROUP):
        container = subprocess.Popen([*unshare, "sh", "-c", script], stdin=-1, stdout=-1, text=True)
    try:
        assert container.stdout
        assert container.stdin
        assert container.stdout.readline() == "ready\n"
        plan = plan_nodelay(cgroup=f"/{CGROUP.name}")
        assert plan.namespace.inode != resolve(None).inode
        receipt = NODELAY.apply(plan, store)
        assert receipt is not None
        container.stdin.write("go on\n")
        container.stdin.flush()
        assert container.stdout.readline() == "1 1 1 1\n"
        assert NODELAY.undo(receipt, store).complete
    finally:
        container.kill()
        container.communicate()
        assert eventually(lambda: not (CGROUP / "cgroup.procs").read_text())


def test_a_connection_that_nobody_accepted_is_reported(host: Namespace, store: Receipts) -> None:
    """It has no descriptor that could be reached; once accepted it can."""
    with (
        call_inside(host, socket.create_server, ("127.0.0.1", 7300)) as listener,
        call_inside(host, socket.create_connection, ("127.0.0.1", 7300)) as early,
    ):
        plan = NODELAY.plan(host, SocketScope(ports=(7300, 7300)))
        assert isinstance(plan, Plan)
        assert any("1 open connection not yet accepted" in note for note in plan.notes)
        receipt = apply(host, SocketScope(ports=(7300, 7300)), store)
        with listener.accept()[0] as accepted:
            assert nodelay(early)
            assert not nodelay(accepted)
        with call_inside(host, socket.create_connection, ("127.0.0.1", 7300)) as late:
            outcome = NODELAY.undo(receipt, store)
            assert not nodelay(late)
        assert [part.ending for part in outcome.details] == [Ending.LEFT, Ending.UNDONE]
        assert "not yet accepted by their program, which may keep it" in outcome.open_points[0]


def test_none_slips_through(host: Namespace, store: Receipts) -> None:
    """Connections come and go all the while: each that is open after apply has it, none after undo."""
    with call_inside(host, socket.create_server, ("127.0.0.1", 7300)) as listener:
        ends: list[socket.socket] = []

        def connect_until(enough: threading.Event) -> None:
            while not enough.is_set():
                ends.extend((socket.create_connection(("127.0.0.1", 7300)), listener.accept()[0]))
                while len(ends) > 300:
                    ends.pop(0).close()

        def meanwhile(change: Callable[[], T]) -> T:
            enough = threading.Event()
            churn = threading.Thread(target=call_inside, args=(host, connect_until, enough))
            churn.start()
            try:
                assert eventually(lambda: len(ends) == 300)
                return change()
            finally:
                enough.set()
                churn.join()

        try:
            receipt = meanwhile(lambda: apply(host, SocketScope(ports=(7300, 7300)), store))
            assert all(nodelay(end) for end in ends)
            assert meanwhile(lambda: NODELAY.undo(receipt, store)).complete
            assert not any(nodelay(end) for end in ends)
        finally:
            for end in ends:
                end.close()


def test_what_it_waits_for_may_end(host: Namespace, store: Receipts) -> None:
    """A process, a cgroup: status says so, undo leaves nothing."""
    gone = CGROUP / "gone"
    gone.mkdir()
    removed = apply(host, SocketScope(cgroup=f"/{CGROUP.name}/gone"), store)
    gone.rmdir()
    assert eventually(lambda: "cgroup was removed" in NODELAY.status(removed, store).details[0].words)
    with subprocess.Popen(["nsenter", f"--net={host.path}", "sleep", "600"]) as process:
        ended = apply(host, SocketScope(pid=process.pid, start_time=start_time_of(process.pid)), store)
        process.kill()
    assert "the process has ended" in NODELAY.status(ended, store).details[0].words
    for receipt in (removed, ended):
        assert NODELAY.status(receipt, store).state is not State.IN_FORCE
        assert NODELAY.undo(receipt, store).complete
    assert not hooks()


def test_a_connection_has_one_hook(host: Namespace, store: Receipts) -> None:
    receipt = apply(host, SocketScope(ports=(7300, 7310)), store)
    refusal = NODELAY.plan(host, SocketScope(ports=(7305, 7305), to="10.0.0.0/8"))
    assert not isinstance(refusal, Plan)
    assert receipt.id in refusal.reason
    for apart in (SocketScope(ports=(7311, 7320)),):
        apply(host, apart, store)
    with temporary("other") as other:
        apply(other, SocketScope(ports=(7300, 7310)), store)
    store.path(receipt.id).unlink()  # the same request, its receipt lost: kept from being taken for new
    plan = NODELAY.plan(host, SocketScope(ports=(7300, 7310)))
    assert isinstance(plan, Plan)
    with pytest.raises(Refused, match=receipt.id):
        NODELAY.apply(plan, store)
    assert NODELAY.sweep(host, store.directory).removed


@pytest.mark.parametrize(
    ("option", "number", "before"),
    [
        (SocketOption(name="SO_MARK", value=0x100, mask=0x100), (socket.SOL_SOCKET, socket.SO_MARK), 0x3),
        (SocketOption(name="TCP_DELACK_MAX", value=8000), (socket.IPPROTO_TCP, 46), None),
    ],
    ids=["mark", "cap"],
)
def test_the_engine_sets_other_options(
    option: SocketOption, number: tuple[int, int], before: int | None, host: Namespace, tmp_path: Path
) -> None:
    """One bit of the mark, with the others kept; the longest delay of an ACK."""
    scope = SocketScope(ports=(7300, 7300))
    changes = (SocketsSteered(option=option, scope=scope), OpenSocketsSet(option=option, scope=scope))
    with contextlib.ExitStack() as stack:
        opened, _ = (stack.enter_context(end) for end in pair(host, "127.0.0.1", 7300))
        if before is not None:
            opened.setsockopt(*number, before)
        was = opened.getsockopt(*number)
        steering = Steering(host, tmp_path / "nodelay-ffffff.json")
        try:
            probing.require(option)
            for change in changes:
                steering.make(change)
            born, _ = (stack.enter_context(end) for end in pair(host, "127.0.0.1", 7300))
            assert opened.getsockopt(*number) == was & ~option.mask | option.value
            assert born.getsockopt(*number) == option.value
        finally:
            ended = [steering.unmake(change).ending for change in reversed(changes)]
        assert ended == [Ending.UNDONE, Ending.UNDONE]
        assert opened.getsockopt(*number) == was
        assert born.getsockopt(*number) == (0 if before is not None else was)
