"""The contract of every remedy, on the real kernel: refuse without a need, apply twice is once, undo restores, the stall
goes away and other traffic is unharmed.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.kernel.contract.cases import FOREIGN, SCOPES, Case, followers, pins, plan_of, state
from tests.kernel.quickack_hosts import SLOW_MS, Conversation, ip, router, wire
from tests.kernel.stepping import COMMAND, request
from tests.polling import eventually

from ackward import remedies
from ackward.errors import Unavailable, UnknownName
from ackward.kernel.namespaces import Namespace, resolve, temporary
from ackward.model.plan import Ending, Lasting, State
from ackward.model.scopes import (
    RouteScope,
    SocketScope,
)
from ackward.remedies.clearance import undo_all
from ackward.remedies.lasting import lease
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import identify


def test_apply_then_undo_restores_all(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    receipt = case.apply(host, store)
    assert state(host) != before
    status = case.remedy.status(receipt, store)
    assert status.state is State.IN_FORCE, status
    assert len(status.details) == len(receipt.changes)
    outcome = case.remedy.undo(receipt, store)
    assert outcome.complete
    assert {part.ending for part in outcome.details} == {Ending.UNDONE}
    assert state(host) == before
    assert store.load().receipts == ()
    assert followers(store) == 0


def test_a_lease_takes_all_back_by_itself(case: Case, host: Namespace, store: Receipts) -> None:
    """Durations are the same for all remedies (tests/kernel/lasting); that each can be taken back by another process is not."""
    before = state(host)
    receipt = case.remedy.apply(case.plan(host), store, Lasting(lease_ns=500_000_000))
    assert receipt is not None
    assert receipt.lease == receipt.changes[0]
    assert eventually(lambda: state(host) == before and not store.load().receipts)
    assert eventually(lambda: not lease.of_directory(store.directory))


def test_planning_changes_nothing(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    case.plan(host)
    assert state(host) == before
    assert not store.directory.exists()


def test_apply_twice_is_once(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    first = case.apply(host, store)
    content = store.path(first.id).read_bytes()
    fast = state(host)
    assert case.apply(host, store) == first
    assert case.remedy.apply(case.plan(host), store) == first
    assert store.path(first.id).read_bytes() == content
    assert store.load().receipts == (first,)
    assert state(host) == fast
    assert followers(store) <= 1
    case.remedy.undo(first, store)
    assert state(host) == before


def test_applied_at_once_by_several_is_once(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    plans = [case.plan(host) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda plan: case.remedy.apply(plan, store), plans))
    assert len({receipt.id for receipt in made if receipt}) == 1
    (receipt,) = store.load().receipts
    case.remedy.undo(receipt, store)
    assert state(host) == before


def test_undo_twice_is_once(case: Case, host: Namespace, store: Receipts) -> None:
    receipt = case.apply(host, store)
    case.remedy.undo(receipt, store)
    before = state(host)
    with pytest.raises(UnknownName):
        case.remedy.undo(receipt, store)
    assert state(host) == before


def test_a_failure_on_the_way_takes_all_back(case: Case, host: Namespace, store: Receipts) -> None:
    """A disk that fills up after the receipt was written: the state cannot be noted, so nothing stays."""
    before = state(host)
    store.directory.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(store.directory)], check=True)
    try:
        steps = case.remedy.apply_steps(case.plan(host), store)
        next(steps)
        assert len(store.load().receipts) == 1
        fill(store.directory)
        with pytest.raises(Unavailable, match="No space left"):
            list(steps)
        assert state(host) == before
        assert store.load().receipts == ()
        assert followers(store) == 0
    finally:
        subprocess.run(["umount", str(store.directory)], check=True)


def fill(directory: Path) -> None:
    """Leave not a byte."""
    filler = directory / "filler"
    free = os.statvfs(directory)
    filler.write_bytes(b"x" * free.f_bavail * free.f_bsize)
    assert os.statvfs(directory).f_bavail == 0


def test_without_room_for_a_receipt_nothing_is_changed(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    store.directory.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(store.directory)], check=True)
    try:
        fill(store.directory)
        with pytest.raises(Unavailable, match="no receipt can be written"):
            case.apply(host, store)
        assert state(host) == before
    finally:
        subprocess.run(["umount", str(store.directory)], check=True)


def test_steps_that_are_abandoned_are_taken_back(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    steps = case.remedy.apply_steps(case.plan(host), store)
    while state(host) == before:
        next(steps)
    steps.close()
    assert state(host) == before
    assert store.load().receipts == ()


def test_without_the_capability_nothing_is_changed(case: Case, host: Namespace, store: Receipts) -> None:
    before = state(host)
    # Root without the capability: no permission on files stands in the way, only the kernel's word on routes.
    drop = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = subprocess.run(
        [*drop, *COMMAND],
        input=f"{request(case.plan(host), store)}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "255\n"
    assert "PrivilegeMissing: changing routes and sockets needs CAP_NET_ADMIN" in done.stderr
    assert state(host) == before
    assert store.load().receipts == ()


def test_the_same_in_another_namespace_is_another_receipt(
    case: Case, host: Namespace, store: Receipts
) -> None:
    with router() as other:
        first, second = case.apply(host, store), case.apply(other, store)
        assert first.id != second.id
        assert identify(host).cookie != identify(other).cookie
        fast = state(other)
        case.remedy.undo(first, store)
        assert state(other) == fast
        assert case.remedy.status(second, store).state is State.IN_FORCE
        case.remedy.undo(second, store)


def test_a_receipt_of_a_namespace_that_is_gone_undoes_to_nothing(case: Case, store: Receipts) -> None:
    with router() as host:
        receipt = case.apply(host, store)
    assert eventually(lambda: case.remedy.status(receipt, store).state is State.GONE)
    assert case.remedy.undo(receipt, store).complete
    assert store.load().receipts == ()
    assert receipt.id not in [directory.name.partition("@")[0] for directory in pins()]


def test_a_receipt_of_an_earlier_boot_undoes_to_nothing(case: Case, host: Namespace, store: Receipts) -> None:
    receipt = case.apply(host, store)
    fast = state(host)
    older = receipt.model_copy(update={"boot_id": "earlier"})
    with store.lock():
        store.write(older)
    outcome = case.remedy.undo(older, store)
    assert outcome.complete
    assert "booted" in outcome.details[0].words
    assert state(host) == fast
    with store.lock():
        store.write(receipt)
    assert case.remedy.undo(receipt, store).complete


class TestDamage:
    """Receipts that cannot be read, and receipts that are lost."""

    def test_a_damaged_receipt_stops_no_other_undo(
        self, case: Case, host: Namespace, store: Receipts
    ) -> None:
        receipt = case.apply(host, store)
        damaged = store.path("quickack-ffffff")
        damaged.write_bytes(store.path(receipt.id).read_bytes()[:40])
        assert case.remedy.undo(receipt, store).complete
        assert store.load().damaged == (damaged,)

    def test_undo_all_removes_what_is_ours_and_says_what_it_cannot_know(
        self, case: Case, host: Namespace, store: Receipts
    ) -> None:
        before = state(host)
        receipt = case.apply(host, store)
        store.path(receipt.id).write_bytes(b"{")
        cleared = undo_all(store, [host])
        assert not cleared.complete
        assert [path.parent.name for path in cleared.aside] == ["damaged"]
        assert store.load().damaged == ()
        assert eventually(lambda: followers(store) == 0)
        changed = {change.kind for change in receipt.changes}
        if changed <= FOREIGN:
            # A metric on a route of somebody else is nobody's for sure: named, not touched.
            assert len([point for point in cleared.open_points if "perhaps ours" in point]) == len(
                receipt.changes
            )
        else:
            assert state(host) == before
            assert not any("perhaps ours" in point for point in cleared.open_points)
            assert cleared.swept

    def test_undo_all_removes_what_is_ours_without_a_receipt(
        self, case: Case, host: Namespace, store: Receipts
    ) -> None:
        before = state(host)
        receipt = case.apply(host, store)
        store.path(receipt.id).unlink()
        cleared = undo_all(store, [host])
        assert cleared.complete
        assert eventually(lambda: followers(store) == 0)
        if not {change.kind for change in receipt.changes} <= FOREIGN:
            assert state(host) == before
            assert cleared.swept


@pytest.mark.parametrize(
    "case",
    [("quickack", scope) for scope in SCOPES["quickack"] if not isinstance(scope, SocketScope)],
    indirect=True,
    ids=lambda pair: pair[1].kind,
)
def test_the_stall_goes_away_and_other_traffic_is_unharmed(case: Case, store: Receipts) -> None:
    """Watched on connections that are open all the while: the stalling one, and one that never stalled."""
    with temporary("client") as client, temporary("server") as server:
        wire(server, client, "w0", 0)
        ip(client, "addr", "add", "203.0.113.7/32", "dev", "lo")
        ip(server, "route", "add", "default", "via", "198.19.0.2")
        if case.scope in (RouteScope(), RouteScope(to="203.0.113.0/24")):
            # The server reaches this client by its default route.
            ip(client, "route", "replace", "198.19.0.0/24", "dev", "w0", "src", "203.0.113.7")
        with (
            Conversation(client, server, "198.19.0.1", 7300) as stalling,
            Conversation(client, server, "198.19.0.1", 7301, nagle=False) as healthy,
        ):
            assert stalling.median() > SLOW_MS
            quick = healthy.median(50)
            receipt = case.apply(server, store)
            assert stalling.median() < SLOW_MS / 4
            # Timing on a shared machine moves by a factor of two between runs; a stall would be a factor of a hundred.
            assert healthy.median(50) < quick * 3 + 1
            assert case.remedy.undo(receipt, store).complete
            assert stalling.median() > SLOW_MS


def test_a_process_is_a_name_for_its_namespace(store: Receipts) -> None:
    """The receipt finds the namespace again when that process has ended and another is in it."""
    quickack = remedies.load("quickack")
    with router() as host:
        enter = ["nsenter", f"--net={host.path}", "sleep", "600"]
        with subprocess.Popen(enter) as process:
            assert eventually(lambda: Path(f"/proc/{process.pid}/ns/net").stat().st_ino == host.inode)
            receipt = quickack.apply(plan_of(quickack, resolve(str(process.pid))), store)
            assert receipt is not None
            process.kill()
        assert quickack.status(receipt, store).state is State.IN_FORCE
        assert quickack.undo(receipt, store).complete
