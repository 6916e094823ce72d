"""Apply and undo as a sequence of steps that may be cut between any two of them.

Laws:

1. The receipt is written before the first change, and removed after the last undo.
2. Undo of a change that was never made, or is undone already, does nothing: so undo works after a kill at any
step.
3. A failure on the way takes back all that was done; what cannot be taken back keeps its receipt.
4. One apply or undo at a time (the store's lock).

Both are generators of steps in words; :func:`finish` runs one through.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ackward.errors import AckwardError, PartlyChanged, PrivilegeMissing, Refused
from ackward.kernel.namespaces import Namespace, in_sight
from ackward.kernel.netlink import Netlink
from ackward.model.changes import Change
from ackward.model.plan import (
    Ending,
    Look,
    NamespaceIdentity,
    Plan,
    Receipt,
    ReceiptState,
    Refusal,
    State,
    Status,
    Undone,
    UndoOutcome,
)
from ackward.model.scopes import Scope
from ackward.remedies.receipts import Receipts, boot_id

CAP_NET_ADMIN = 12  # include/uapi/linux/capability.h

T = TypeVar("T")


@dataclass(frozen=True)
class Swept:
    """What was found without a receipt: objects of ours, removed, and what may be ours or not."""

    removed: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()


class Effects(Protocol):
    """What a remedy does to the kernel, one change at a time, inside one namespace."""

    def make(self, change: Change) -> Change:
        """Make the change; gives it back, completed by what only the making could tell (a PID).

        Raises :class:`Refused` only before anything was touched.
        """

    def look(self, change: Change) -> Look:
        """Read the change back from the kernel."""

    def unmake(self, change: Change) -> Undone:
        """Take the change back if it is there and still ours."""


#: Opens the effects inside a namespace, for the receipt in the given file.
OpenEffects = Callable[[Namespace, Path], AbstractContextManager[Effects]]


@dataclass(frozen=True)
class Remedy:
    """The one shape of a remedy: a package gives four fields; apply, status and undo are the same for all."""

    name: str
    #: Reads the namespace and plans; changes nothing.
    plan: Callable[[Namespace, Scope], Plan | Refusal]
    effects: OpenEffects
    #: Removes what is recognisably ours from a namespace; the directory is that of the receipts.
    sweep: Callable[[Namespace, Path], Swept]

    def apply_steps(self, plan: Plan, store: Receipts) -> Generator[str, None, Receipt | None]:
        """See :func:`apply_steps`."""
        return apply_steps(plan, store, self.effects)

    def apply(self, plan: Plan, store: Receipts) -> Receipt | None:
        """Apply all of the plan or nothing. None: there was nothing to change."""
        return finish(self.apply_steps(plan, store))

    def status(self, receipt: Receipt, store: Receipts) -> Status:
        """The receipt as the kernel sees it now."""
        return status(receipt, store, self.effects)

    def undo_steps(self, receipt: Receipt, store: Receipts) -> Generator[str, None, UndoOutcome]:
        """See :func:`undo_steps`."""
        return undo_steps(receipt, store, self.effects)

    def undo(self, receipt: Receipt, store: Receipts) -> UndoOutcome:
        """Take back what the receipt speaks of; what was left or failed stands in the outcome."""
        return finish(self.undo_steps(receipt, store))


def finish(steps: Generator[str, None, T]) -> T:
    """Run all steps and give back what they end with."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def identify(namespace: Namespace) -> NamespaceIdentity:
    """The namespace with its cookie."""
    with Netlink(namespace) as netlink:
        cookie = netlink.cookie()
    return NamespaceIdentity(
        name=namespace.name, path=str(namespace.path), inode=namespace.inode, cookie=cookie
    )


def find(identity: NamespaceIdentity) -> Namespace | None:
    """The namespace, by its path or wherever it is in sight now; none when it is gone."""
    candidates = in_sight()
    try:
        inode = Path(identity.path).stat().st_ino
    except OSError:
        pass  # the process or the name is gone; the namespace may live on
    else:
        candidates.insert(0, Namespace(identity.name, Path(identity.path), inode))
    for namespace in candidates:
        if namespace.inode != identity.inode:
            continue
        try:
            cookie = identify(namespace).cookie
        except FileNotFoundError:
            continue  # the process that led there has ended meanwhile
        # An inode is used again after its namespace died; a cookie is not.
        if cookie == identity.cookie:
            return namespace
    return None


def require_net_admin() -> None:
    """Raise :class:`PrivilegeMissing` unless this process may change routing."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    if not int(effective, 16) >> CAP_NET_ADMIN & 1:
        raise PrivilegeMissing.for_this_command(
            "changing routes needs CAP_NET_ADMIN", consequence="nothing was changed"
        )


def apply_steps(
    plan: Plan, store: Receipts, open_effects: OpenEffects
) -> Generator[str, None, Receipt | None]:
    """All of the plan or nothing. Ends with the receipt; with none when there was nothing to change.

    The same request again changes nothing and ends with the first receipt, if that is still wholly in force.
    """
    require_net_admin()
    with store.lock():
        earlier = store.find(plan.remedy, plan.namespace, plan.scope)
        if earlier is not None:
            return _still_in_force(earlier, store, open_effects)
        if not plan.changes:
            return None
        namespace = find(plan.namespace)
        if namespace is None:
            raise Refused(f"the namespace {plan.namespace.name} is gone", consequence="nothing was changed")
        receipt = store.create(plan)
        begun = 0
        try:
            yield f"receipt {receipt.id} written"
            with open_effects(namespace, store.path(receipt.id)) as effects:
                for index, change in enumerate(plan.changes):
                    begun = index + 1
                    made = effects.make(change)
                    yield change.words
                    if made != change:
                        changes = (*receipt.changes[:index], made, *receipt.changes[index + 1 :])
                        receipt = receipt.model_copy(update={"changes": changes})
                        store.write(receipt)
                        yield f"receipt {receipt.id} completed"
            receipt = receipt.model_copy(update={"state": ReceiptState.APPLIED})
            store.write(receipt)
            yield "applied"
        except BaseException as error:
            # A make that refuses has touched nothing: what it found there is someone else's.
            touched = begun - 1 if isinstance(error, Refused) else begun
            _take_back(receipt, touched, namespace, store, open_effects, error)
            raise
        return receipt


def _still_in_force(receipt: Receipt, store: Receipts, open_effects: OpenEffects) -> Receipt:
    found = status(receipt, store, open_effects)
    if found.state is State.IN_FORCE:
        return receipt
    interrupted = " (its apply was interrupted)" if receipt.state is ReceiptState.APPLYING else ""
    raise Refused(
        f"the same request has the receipt {receipt.id}, which is {found.state.value}{interrupted}",
        consequence="nothing was changed",
        next_step=f"`ackward undo {receipt.id}`, then apply again",
    )


def _take_back(
    receipt: Receipt,
    touched: int,
    namespace: Namespace,
    store: Receipts,
    open_effects: OpenEffects,
    error: BaseException,
) -> None:
    with open_effects(namespace, store.path(receipt.id)) as effects:
        parts = [_unmake(effects, change) for change in reversed(receipt.changes[:touched])]
    open_points = [part.words for part in parts if part.ending in (Ending.LEFT, Ending.FAILED)]
    if open_points:
        raise PartlyChanged(
            f"{error or type(error).__name__} And not all could be taken back: {'; '.join(open_points)}",
            consequence=f"the receipt {receipt.id} was kept",
            next_step=f"`ackward undo {receipt.id}` when the cause is removed",
        ) from error
    store.remove(receipt)


def _unmake(effects: Effects, change: Change) -> Undone:
    try:
        return effects.unmake(change)
    except AckwardError as error:  # reported in the outcome; the other changes are still undone
        return Undone(ending=Ending.FAILED, words=f"could not take back: {change.words}: {error}")


def status(receipt: Receipt, store: Receipts, open_effects: OpenEffects) -> Status:
    """The receipt as the kernel sees it now."""
    namespace = find(receipt.namespace) if receipt.boot_id == boot_id() else None
    if namespace is None:
        gone = "the machine was booted since" if receipt.boot_id != boot_id() else "its namespace is gone"
        return Status(receipt=receipt, state=State.GONE, details=(Look(state=State.GONE, words=gone),))
    with open_effects(namespace, store.path(receipt.id)) as effects:
        details = tuple(effects.look(change) for change in receipt.changes)
    states = {look.state for look in details}
    return Status(receipt=receipt, state=_together(states), details=details)


def _together(states: set[State]) -> State:
    if State.CHANGED in states:
        return State.CHANGED
    return states.pop() if len(states) == 1 else State.PARTLY


def undo_steps(
    receipt: Receipt, store: Receipts, open_effects: OpenEffects
) -> Generator[str, None, UndoOutcome]:
    """Take back what is ours, report what others changed since, forget the receipt if nothing failed."""
    require_net_admin()
    with store.lock():
        receipt = store.get(receipt.id)  # as it is now: an undo that went before us may have removed it
        namespace = find(receipt.namespace) if receipt.boot_id == boot_id() else None
        parts: list[Undone] = []
        if receipt.boot_id != boot_id():
            parts.append(
                Undone(ending=Ending.NOTHING, words="the machine was booted since: nothing of it is left")
            )
        elif namespace is None:
            words = f"the namespace {receipt.namespace.name} is gone, and all changes with it"
            parts.append(Undone(ending=Ending.NOTHING, words=words))
        else:
            with open_effects(namespace, store.path(receipt.id)) as effects:
                for change in reversed(receipt.changes):
                    parts.append(_unmake(effects, change))
                    yield parts[-1].words
        outcome = UndoOutcome(receipt=receipt.id, remedy=receipt.remedy, details=tuple(parts))
        if not outcome.failed:
            store.remove(receipt)
            yield f"receipt {receipt.id} removed"
        return outcome
