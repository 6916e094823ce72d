"""The store of receipts: whole or not at all, and damage stays where it is."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackward.errors import Unavailable, UnknownName
from ackward.kernel.namespaces import Namespace
from ackward.model.changes import (
    FollowerStarted,
    RouteAdded,
    RouteMetric,
    RouteName,
    RuleAdded,
    TableMirrored,
)
from ackward.model.plan import NamespaceIdentity, Plan, Receipt, ReceiptState, State
from ackward.model.scopes import PortScope, RouteScope
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Effects, status

NAMESPACE = NamespaceIdentity(name="here", path="/proc/self/ns/net", inode=1, cookie=2)
ROUTE = RouteName(family=6, destination="::/0", table=254, metric=1024, via="via fe80::1 dev eth0")
PLAN = Plan(
    remedy="quickack",
    namespace=NAMESPACE,
    scope=PortScope(port=7000),
    changes=(
        RouteMetric(route=ROUTE, metric="initcwnd", before=10, after=30),
        RouteAdded(
            route=ROUTE, copy_of="::/0", metrics={"quickack": 1}, before={"quickack": 0}, message="00ff"
        ),
        TableMirrored(family=4, table=44032),
        RuleAdded(family=4, preference=32765, selector="sport", port=7000, table=44032),
        FollowerStarted(table=44032, pid=7, start_time=9),
    ),
)


@pytest.fixture
def store(tmp_path: Path) -> Receipts:
    return Receipts(tmp_path / "ackward")


def created(store: Receipts, plan: Plan = PLAN) -> Receipt:
    with store.lock():
        return store.create(plan)


def test_a_receipt_comes_back_as_it_was_written(store: Receipts) -> None:
    receipt = created(store)
    assert store.load().receipts == (receipt,)
    assert store.get(receipt.id) == receipt
    assert receipt.state is ReceiptState.APPLYING
    assert json.loads(store.path(receipt.id).read_text())["schema"] == "ackward/receipt/1"


def test_only_the_owner_may_look(store: Receipts) -> None:
    receipt = created(store)
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path(receipt.id).stat().st_mode) == 0o600


def test_an_empty_store_is_not_made_by_looking(store: Receipts) -> None:
    assert store.load().receipts == ()
    assert not store.directory.exists()


def test_the_same_request_is_found_and_others_are_not(store: Receipts) -> None:
    receipt = created(store)
    assert store.find("quickack", NAMESPACE, PLAN.scope) == receipt
    assert store.find("quickack", NAMESPACE, PortScope(port=7001)) is None
    assert store.find("quickack", NAMESPACE, RouteScope()) is None
    assert store.find("quickack", NAMESPACE.model_copy(update={"cookie": 3}), PLAN.scope) is None
    assert (
        store.find("quickack", NAMESPACE.model_copy(update={"name": "alias", "path": "/x"}), PLAN.scope)
        == receipt
    )


def test_two_receipts_never_share_a_file(store: Receipts) -> None:
    made = [created(store) for _ in range(20)]
    assert {receipt.id for receipt in store.load().receipts} == {receipt.id for receipt in made}
    assert len(store.load().receipts) == 20


def test_a_receipt_cut_at_any_byte_is_damaged_and_harms_no_other(store: Receipts) -> None:
    whole, victim = created(store), created(store)
    path = store.path(victim.id)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        found = store.load()
        assert found.receipts == (whole,), length
        assert found.damaged == (path,), length


@given(st.binary(max_size=200))
def test_garbage_is_damaged(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    store = Receipts(tmp_path_factory.mktemp("store"))
    whole = created(store)
    path = store.path("quickack-garbage")
    path.write_bytes(garbage)
    assert store.load().receipts == (whole,)
    assert store.load().damaged == (path,)


@pytest.mark.parametrize(
    "edit",
    [
        {"remedy": "levitation"},
        {"id": "quickack-other"},
        {"schema": "ackward/receipt/2"},
        {"unheard": 1},
        {"id": "../x"},
    ],
    ids=str,
)
def test_what_this_version_cannot_undo_is_not_taken_for_a_receipt(
    store: Receipts, edit: dict[str, object]
) -> None:
    path = store.path(created(store).id)
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    assert store.load().receipts == ()
    assert store.load().damaged == (path,)


def test_a_damaged_file_moved_aside_is_kept_and_no_longer_reported(store: Receipts) -> None:
    path = store.path(created(store).id)
    path.write_bytes(b"{")
    aside = store.set_aside(path)
    assert aside.read_bytes() == b"{"
    assert store.load().damaged == ()


def test_an_unknown_name_names_what_is_there(store: Receipts) -> None:
    receipt = created(store)
    store.path("quickack-broken").write_bytes(b"")
    with pytest.raises(UnknownName) as caught:
        store.get("quickack-000000")
    assert receipt.id in caught.value.next_step
    assert "quickack-broken" in caught.value.next_step


def test_what_a_killed_writer_left_is_no_receipt_and_goes_away(store: Receipts) -> None:
    created(store)
    leftover = store.directory / ".quickack-123456.partial"
    leftover.write_bytes(b"{")
    assert len(store.load().receipts) == 1
    with store.lock():
        assert not leftover.exists()


def test_no_receipt_can_be_written_over_a_file(tmp_path: Path) -> None:
    blocked = tmp_path / "ackward"
    blocked.write_text("not a directory")
    with pytest.raises(Unavailable, match="no receipt can be written") as caught, Receipts(blocked).lock():
        pytest.fail("the lock was given")
    assert "nothing is changed" in caught.value.consequence


def test_the_lock_keeps_other_processes_out(store: Receipts) -> None:
    program = (
        "import fcntl, sys\n"
        "try: fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except BlockingIOError: sys.exit(7)"
    )
    command = [sys.executable, "-c", program, str(store.directory / "lock")]
    with store.lock():
        assert subprocess.run(command, check=False).returncode == 7


# Each adds one, so slowly that two at once would lose one of theirs.
COUNTING = """
import sys, time
from pathlib import Path
from ackward.remedies.receipts import Receipts
store, count = Receipts(Path(sys.argv[1])), Path(sys.argv[2])
for _ in range(100):
    with store.lock():
        before = int(count.read_text())
        time.sleep(0.0001)
        count.write_text(str(before + 1))
"""


def test_one_at_a_time_also_where_the_lock_goes_each_time(tmp_path: Path) -> None:
    """Nothing else is in the directory: whoever leaves takes it away, while others wait for its lock."""
    directory, count = tmp_path / "store", tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", COUNTING, str(directory), str(count)]
    running = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert count.read_text() == "400"
    assert not directory.exists()


def test_what_others_put_beside_the_receipts_keeps_the_directory(store: Receipts) -> None:
    with store.lock():
        (store.directory / "gateway").mkdir()
    assert [entry.name for entry in store.directory.iterdir()] == ["gateway"]


def test_the_lock_is_not_inherited(store: Receipts) -> None:
    with store.lock():
        listing = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True
        ).stdout
        held = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert str(store.directory / "lock") in held
    assert str(store.directory) not in listing


def _no_effects(namespace: Namespace, receipt: Path) -> AbstractContextManager[Effects]:
    pytest.fail("the kernel was asked")


def test_a_receipt_of_an_earlier_boot_is_gone(store: Receipts) -> None:
    receipt = created(store).model_copy(update={"boot_id": "earlier"})
    found = status(receipt, store, _no_effects)
    assert found.state is State.GONE
    assert "booted" in found.details[0].words


def test_a_receipt_of_a_namespace_that_is_not_there_is_gone(store: Receipts) -> None:
    found = status(created(store), store, _no_effects)
    assert found.state is State.GONE
    assert "namespace" in found.details[0].words
