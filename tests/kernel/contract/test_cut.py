"""The contract of every remedy: kill -9 anywhere leaves nothing behind."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from tests.kernel.contract.cases import Case, followers, state
from tests.kernel.stepping import Stepper, request, stepping
from tests.polling import eventually

from ackward.errors import Refused
from ackward.kernel.namespaces import Namespace
from ackward.model.plan import State
from ackward.model.scopes import (
    SocketScope,
)
from ackward.remedies.clearance import undo_all
from ackward.remedies.receipts import Receipts


@pytest.fixture(scope="module")
def take() -> Iterator[Stepper]:
    with stepping() as made:
        yield made


def test_killed_after_any_step_of_apply_undo_all_leaves_nothing(
    case: Case, host: Namespace, store: Receipts, take: Stepper
) -> None:
    before = state(host)
    plan = case.plan(host)
    # A mark's detour begins as a port's, which is cut at each step in a case of its own.
    last = 4 if type(case.scope) is SocketScope and case.remedy.name == "quickack" else 0
    while True:
        last += 1
        total = take(request(plan, store, last=last))
        (receipt,) = store.load().receipts
        if total is None and last > 1:
            # Whatever is there must be told, and another apply must not bury it.
            assert case.remedy.status(receipt, store).state is not State.CHANGED
        cleared = undo_all(store, [host])
        assert cleared.complete, cleared
        assert state(host) == before, last
        assert store.load().receipts == ()
        assert followers(store) == 0
        if total is not None:
            break
    assert last == total + 1
    assert total >= 3  # the receipt, at least one change, the end


def test_killed_after_any_step_of_undo_undo_all_leaves_nothing(
    case: Case, host: Namespace, store: Receipts, take: Stepper
) -> None:
    before = state(host)
    last = 0
    while True:
        last += 1
        case.apply(host, store)
        total = take(request(None, store, last=last))
        cleared = undo_all(store, [host])
        assert cleared.complete, cleared
        assert state(host) == before, last
        assert store.load().receipts == ()
        assert followers(store) == 0
        if total is not None:
            break
    assert total >= 2


def test_killed_at_any_moment_undo_all_leaves_nothing(
    case: Case, host: Namespace, store: Receipts, take: Stepper
) -> None:
    """Inside the steps too: at moments of no one's choosing."""
    before = state(host)
    plan = case.plan(host)
    moments = random.Random(7)
    started = time.monotonic()
    assert take(request(plan, store)) is not None
    takes = time.monotonic() - started
    undo_all(store, [host])
    for _ in range(6):
        take(request(plan, store, within=moments.uniform(0, 1) * takes))
        # A follower that was just being started ends by itself, or is found by its command line.
        assert undo_all(store, [host]).complete
        assert eventually(lambda: followers(store) == 0)
        undo_all(store, [host])
        assert state(host) == before


def test_an_interrupted_apply_is_not_applied_over(
    case: Case, host: Namespace, store: Receipts, take: Stepper
) -> None:
    assert take(request(case.plan(host), store, last=2)) is None
    (receipt,) = store.load().receipts
    if case.remedy.status(receipt, store).state is State.IN_FORCE:
        assert case.apply(host, store) == receipt  # its one change was made: nothing is missing
    else:
        with pytest.raises(Refused, match="interrupted") as caught:
            case.apply(host, store)
        assert f"ackward undo {receipt.id}" in caught.value.next_step
    assert case.remedy.undo(receipt, store).complete
