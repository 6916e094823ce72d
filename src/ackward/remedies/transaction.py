"""Apply and undo as a sequence of steps that may be cut between any two of them.

Laws:

1. The receipt is written before the first change, and removed after the last undo.
2. Undo of a change that was never made, or is undone already, does nothing: so undo works after a kill at any
step.
3. A failure on the way takes back all that was done; what cannot be taken back keeps its receipt.
4. One apply or undo at a time (the store's lock).
5. How long a remedy lasts is a change like any other, the same for all remedies (:mod:`ackward.remedies.lasting`):
a lease is made before the receipt and goes after it, persistence comes last and goes first.

Both are generators of steps in words; :func:`finish` runs one through.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ackward.errors import AckwardError, PartlyChanged, PrivilegeMissing, Refused
from ackward.kernel.capabilities import effective
from ackward.kernel.namespaces import Namespace, in_sight
from ackward.kernel.netlink import Netlink
from ackward.model.changes import DURATIONS, Change, Leased, Persisted
from ackward.model.plan import (
    Ending,
    Lasting,
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
from ackward.remedies.lasting import effects as durations
from ackward.remedies.lasting import lease as leases
from ackward.remedies.lasting import persistence
from ackward.remedies.lasting.renewal import relast_steps
from ackward.remedies.receipts import Receipts, boot_id

UNTIL_UNDONE = Lasting()
_STATUS = Path("/proc/self/status")

T = TypeVar("T")


@dataclass(frozen=True)
class Swept:
    """What was found without a receipt: objects of ours, removed, and what may be ours or not."""

    removed: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()


class Occasion(enum.Enum):
    """Why a remedy is undone. ``UNIT_STOPPED``: its unit stays, and it comes back at boot."""

    ASKED = enum.auto()
    UNIT_STOPPED = enum.auto()
    LEASE_OVER = enum.auto()


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

    def apply_steps(
        self, plan: Plan, store: Receipts, lasting: Lasting = UNTIL_UNDONE
    ) -> Generator[str, None, Receipt | None]:
        """See :func:`apply_steps`."""
        return apply_steps(plan, store, self.effects, lasting)

    def apply(self, plan: Plan, store: Receipts, lasting: Lasting = UNTIL_UNDONE) -> Receipt | None:
        """Apply all of the plan or nothing. None: there was nothing to change."""
        return finish(self.apply_steps(plan, store, lasting))

    def status(self, receipt: Receipt, store: Receipts) -> Status:
        """The receipt as the kernel sees it now."""
        return status(receipt, store, self.effects)

    def relast(self, receipt: Receipt, plan: Plan, store: Receipts, lasting: Lasting) -> Receipt:
        """Let a remedy in force last as ``lasting`` says: a lease that is not asked for any more is dropped."""
        require_net_admin()
        with store.lock():
            request = persistence.request_of(plan, store.systemd) if lasting.persist else ()
            receipt = store.get(receipt.id)
            return finish(relast_steps(receipt, lasting, request, store, drop_lease=True))

    def undo_steps(
        self, receipt: Receipt, store: Receipts, occasion: Occasion = Occasion.ASKED
    ) -> Generator[str, None, UndoOutcome]:
        """See :func:`undo_steps`."""
        return undo_steps(receipt, store, self.effects, occasion)

    def undo(self, receipt: Receipt, store: Receipts, occasion: Occasion = Occasion.ASKED) -> UndoOutcome:
        """Take back what the receipt speaks of; what was left or failed stands in the outcome."""
        return finish(self.undo_steps(receipt, store, occasion))


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
    for namespace in _candidates(identity):
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


def _candidates(identity: NamespaceIdentity) -> Iterator[Namespace]:
    # Its path leads there nearly always, and the others take longer to find the more processes there are.
    try:
        inode = Path(identity.path).stat().st_ino
    except OSError:
        pass  # the process or the name is gone; the namespace may live on
    else:
        yield Namespace(identity.name, Path(identity.path), inode)
    yield from in_sight()


def require_net_admin() -> None:
    """Raise :class:`PrivilegeMissing` unless this process may change routes and sockets."""
    if "CAP_NET_ADMIN" not in effective(_STATUS.read_text(encoding="utf-8", errors="replace")):
        raise PrivilegeMissing.for_this_command(
            "changing routes and sockets needs CAP_NET_ADMIN", consequence="nothing was changed"
        )


def apply_steps(
    plan: Plan, store: Receipts, open_effects: OpenEffects, lasting: Lasting
) -> Generator[str, None, Receipt | None]:
    """All of the plan or nothing. Ends with the receipt; with none when there was nothing to change.

    The same request again changes nothing and ends with the first receipt, if that is still wholly in force; only
    how long it lasts is changed if that is asked for: a lease is counted anew from now, and persistence is added.
    """
    require_net_admin()
    with store.lock():
        request = persistence.request_of(plan, store.systemd) if lasting.persist else ()
        earlier = store.find(plan.remedy, plan.namespace, plan.scope)
        if earlier is not None:
            _require_in_force(earlier, store, open_effects)
            return (yield from relast_steps(earlier, lasting, request, store))
        if not plan.changes:
            return None
        namespace = find(plan.namespace)
        if namespace is None:
            raise Refused(
                f"the namespace {plan.namespace.name} is gone",
                consequence="nothing was changed",
                next_step="plan again where its programs run now: `ip netns` lists those that have names",
            )
        # At boot the unit asks for its own remedy: that gets its id.
        adopted = persistence.asking_for(request, store) if lasting.persist else None
        receipt_id = adopted.id if adopted else store.new_id(plan.remedy)
        with leases.held(receipt_id, lasting.lease_ns, store) as lease:
            changes: tuple[Change, ...] = plan.changes
            if lease:
                yield lease.words
                changes = (lease, *changes)
            if lasting.persist:
                changes = (*changes, persistence.planned(receipt_id, request, store))
            receipt = store.create(plan, receipt_id, changes)
            begun = 0
            try:
                yield f"receipt {receipt.id} written"
                with open_effects(namespace, store.path(receipt.id)) as effects:
                    for index, change in enumerate(changes):
                        begun = index + 1
                        made = _make(effects, change, store)
                        yield change.words
                        if made != change:
                            noted = (*receipt.changes[:index], made, *receipt.changes[index + 1 :])
                            receipt = receipt.model_copy(update={"changes": noted})
                            store.write(receipt)
                            yield f"receipt {receipt.id} completed"
                receipt = receipt.model_copy(update={"state": ReceiptState.APPLIED})
                store.write(receipt)
                yield "applied"
            except BaseException as error:
                # A make that refuses has touched nothing: what it found there is someone else's.
                touched = receipt.changes[: begun - 1 if isinstance(error, Refused) else begun]
                if adopted:  # the unit was there before us: it tries again at the next boot
                    touched = tuple(change for change in touched if not isinstance(change, Persisted))
                _take_back(receipt, touched, namespace, store, open_effects, error)
                raise
        return receipt


def _make(effects: Effects, change: Change, store: Receipts) -> Change:
    match change:
        case Leased():  # it was there before the receipt
            return change
        case Persisted():
            persistence.make(change, store.systemd)
            return change
    return effects.make(change)


def _require_in_force(receipt: Receipt, store: Receipts, open_effects: OpenEffects) -> None:
    """Raise :class:`Refused` unless all is there that the remedy itself changed."""
    own = tuple(change for change in receipt.changes if not isinstance(change, DURATIONS))
    found = status(receipt.model_copy(update={"changes": own}), store, open_effects)
    if found.state is State.IN_FORCE:
        return
    interrupted = " (its apply was interrupted)" if receipt.state is ReceiptState.APPLYING else ""
    raise Refused(
        f"the same request has the receipt {receipt.id}, which is {found.state.value}{interrupted}",
        consequence="nothing was changed",
        next_step=f"`ackward undo {receipt.id}`, then apply again",
    )


def _take_back(
    receipt: Receipt,
    touched: tuple[Change, ...],
    namespace: Namespace,
    store: Receipts,
    open_effects: OpenEffects,
    error: BaseException,
) -> None:
    with open_effects(namespace, store.path(receipt.id)) as effects:
        parts = [
            _unmake(effects, change, store) for change in reversed(touched) if not isinstance(change, Leased)
        ]
    open_points = [part.words for part in parts if part.ending in (Ending.LEFT, Ending.FAILED)]
    if open_points:
        raise PartlyChanged(
            f"{error or type(error).__name__} And not all could be taken back: {'; '.join(open_points)}",
            consequence=f"the receipt {receipt.id} was kept",
            next_step=f"`ackward undo {receipt.id}` when the cause is removed",
        ) from error
    store.remove(receipt)


def _unmake(effects: Effects | None, change: Change, store: Receipts) -> Undone:
    try:
        if isinstance(change, Leased | Persisted):
            return durations.unmake(change, store)
        assert effects is not None
        return effects.unmake(change)
    except (AckwardError, OSError) as error:  # reported in the outcome; the other changes are still undone
        return Undone(ending=Ending.FAILED, words=f"could not take back: {change.words}: {error}")


def status(receipt: Receipt, store: Receipts, open_effects: OpenEffects) -> Status:
    """The receipt as the kernel sees it now."""
    namespace, gone = _whereabouts(receipt)
    if namespace is None:
        details: tuple[Look, ...] = (Look(state=State.GONE, words=gone),)
        state = State.GONE
    else:
        with open_effects(namespace, store.path(receipt.id)) as effects:
            details = tuple(
                durations.look(change, store)
                if isinstance(change, Leased | Persisted)
                else effects.look(change)
                for change in receipt.changes
            )
        state = _together({look.state for look in details})
    lease = receipt.lease
    return Status(
        receipt=receipt,
        state=state,
        details=details,
        lease_left_ns=leases.left_ns(lease) if lease else None,
        lease_held=leases.look(lease, store).state is State.IN_FORCE if lease else None,
        persisted=receipt.persisted is not None,
    )


def _whereabouts(receipt: Receipt) -> tuple[Namespace | None, str]:
    """The namespace that a receipt speaks of; if there is none any more, why nothing of it is left."""
    if receipt.boot_id != boot_id():
        return None, "the machine was booted since: nothing of it is left"
    return find(receipt.namespace), f"the namespace {receipt.namespace.name} is gone, and all changes with it"


def _together(states: set[State]) -> State:
    if State.CHANGED in states:
        return State.CHANGED
    return states.pop() if len(states) == 1 else State.PARTLY


def undo_steps(
    receipt: Receipt, store: Receipts, open_effects: OpenEffects, occasion: Occasion
) -> Generator[str, None, UndoOutcome]:
    """Take back what is ours, report what others changed since, forget the receipt if nothing failed.

    What holds a lease is ended after the receipt has gone: killed before that, it finishes what was begun.
    """
    require_net_admin()
    with store.lock():
        receipt = store.get(receipt.id)  # as it is now: an undo that went before us may have removed it
        lease = receipt.lease
        if occasion is Occasion.LEASE_OVER and (lease is None or leases.left_ns(lease) > 0):
            renewed = Undone(ending=Ending.NOTHING, words="nothing to undo: its lease was renewed")
            return UndoOutcome(receipt=receipt.id, remedy=receipt.remedy, details=(renewed,))
        kept = (Leased, Persisted) if occasion is Occasion.UNIT_STOPPED else (Leased,)
        changes = [change for change in reversed(receipt.changes) if not isinstance(change, kept)]
        namespace, gone = _whereabouts(receipt)
        parts: list[Undone] = []
        if namespace is None:
            parts.append(Undone(ending=Ending.NOTHING, words=gone))
            parts += [_unmake(None, change, store) for change in changes if isinstance(change, Persisted)]
        else:
            with open_effects(namespace, store.path(receipt.id)) as effects:
                for change in changes:
                    parts.append(_unmake(effects, change, store))
                    yield parts[-1].words
        outcome = UndoOutcome(receipt=receipt.id, remedy=receipt.remedy, details=tuple(parts))
        if not outcome.failed:
            store.remove(receipt)
            yield f"receipt {receipt.id} removed"
            if (
                lease and occasion is not Occasion.LEASE_OVER
            ):  # else it is what waits for us, and ends by itself
                parts.append(leases.end(lease, store))
                yield parts[-1].words
        return UndoOutcome(receipt=receipt.id, remedy=receipt.remedy, details=tuple(parts))
