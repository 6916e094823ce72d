"""Undo goes on where the kernel refuses one part: what failed is told, keeps its receipt, and stops nothing else."""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from ackward import remedies
from ackward.kernel.namespaces import Namespace, current
from ackward.model.changes import Change, FollowerStarted, TableMirrored
from ackward.model.plan import Ending, Look, Plan, Receipt, Undone, UndoOutcome
from ackward.model.scopes import PortScope
from ackward.remedies import clearance, transaction
from ackward.remedies.clearance import Cleared
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Occasion, finish, identify, undo_steps

CHANGES = (TableMirrored(family=4, table=44032), FollowerStarted(table=44032, pid=7, start_time=9))


class Gone:
    """Effects whose device has gone for the last change, the first to be taken back."""

    def __init__(self) -> None:
        self.taken_back: list[Change] = []

    def make(self, change: Change) -> Change:
        raise AssertionError("nothing is made here")

    def look(self, change: Change) -> Look:
        raise AssertionError("nothing is read back here")

    def unmake(self, change: Change) -> Undone:
        if change == CHANGES[-1]:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        self.taken_back.append(change)
        return Undone(ending=Ending.UNDONE, words=f"undone: {change.words}")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Receipts:
    for module in (transaction, clearance):
        monkeypatch.setattr(module, "require_net_admin", lambda: None)  # nothing of the kernel is changed
    return Receipts(tmp_path / "receipts")


def created(store: Receipts, port: int = 7000) -> Receipt:
    plan = Plan(remedy="quickack", namespace=identify(current()), scope=PortScope(port=port), changes=CHANGES)
    with store.lock():
        return store.create(plan)


def test_a_change_that_the_kernel_refuses_to_take_back_keeps_no_other(store: Receipts) -> None:
    receipt, effects = created(store), Gone()

    def opened(_: Namespace, __: Path) -> AbstractContextManager[Gone]:
        return nullcontext(effects)

    outcome = finish(undo_steps(receipt, store, opened, Occasion.ASKED))
    assert effects.taken_back == [CHANGES[0]]
    assert [part.ending for part in outcome.details] == [Ending.FAILED, Ending.UNDONE]
    assert "No such device" in outcome.words
    assert store.get(receipt.id)


def test_a_receipt_that_cannot_be_undone_keeps_no_other(
    store: Receipts, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = created(store), created(store, 7001)
    real = remedies.load("quickack")

    class Remedy:
        def undo(self, receipt: Receipt, store: Receipts) -> UndoOutcome:
            if receipt.id == first.id:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), receipt.namespace.path)
            with store.lock():
                store.remove(receipt)
            return UndoOutcome(receipt=receipt.id, remedy=receipt.remedy, details=())

        sweep = real.sweep

    monkeypatch.setattr(remedies, "load", lambda _: Remedy())
    cleared = clearance.undo_all(store, [])
    assert not cleared.complete
    assert any(first.id in point and "No such file" in point for point in cleared.open_points)
    assert [receipt.id for receipt in store.load().receipts] == [first.id]
    assert second.id in [outcome.receipt for outcome in cleared.outcomes]
    assert cleared.next_step == (
        f"remove what stopped it, then `ackward undo {first.id}` (`ackward status` shows what is left)"
    )


def ended(ending: Ending) -> UndoOutcome:
    return UndoOutcome(receipt="pin-1", remedy="pin", details=(Undone(ending=ending, words="a unit"),))


def test_the_next_step_is_for_what_is_left() -> None:
    assert Cleared((ended(Ending.UNDONE), ended(Ending.NOTHING))).next_step == ""
    left = Cleared((ended(Ending.LEFT),)).next_step
    assert "yours to decide" in left
    assert "ip route" not in left
    damaged = Cleared((), aside=(Path("/run/ackward/damaged/x"),)).next_step
    assert "/run/ackward/damaged/x" in damaged
    assert "`ip route show table all`" in damaged
    both = Cleared((ended(Ending.FAILED), ended(Ending.LEFT))).next_step
    assert both.startswith("remove what stopped it, then `ackward undo pin-1`")
    assert "yours to decide" in both
