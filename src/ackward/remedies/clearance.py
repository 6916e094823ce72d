"""Undo of everything: all receipts, what is ours without a receipt, and receipts that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ackward import remedies
from ackward.errors import AckwardError
from ackward.kernel import leftovers
from ackward.kernel.namespaces import Namespace, remove_abandoned
from ackward.model.plan import Ending, NamespaceIdentity, Persistent, Receipt, Undone, UndoOutcome
from ackward.remedies.lasting import lease, persistence
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Swept, require_net_admin


@dataclass(frozen=True)
class Cleared:
    """What was undone. ``swept`` had no receipt; ``aside`` are the damaged files, where they lie now.

    ``suspects`` may be changes that a damaged receipt spoke of, or somebody else's: only their maker can
    tell. ``spared`` are the namespaces of pods that a node agent looks after.
    """

    outcomes: tuple[UndoOutcome, ...]
    swept: tuple[str, ...] = ()
    aside: tuple[Path, ...] = ()
    suspects: tuple[str, ...] = ()
    spared: tuple[NamespaceIdentity, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is left that could be ours."""
        return not self.aside and all(outcome.complete for outcome in self.outcomes)

    @property
    def open_points(self) -> tuple[str, ...]:
        """What is left or could not be known, in words."""
        points = [point for outcome in self.outcomes for point in outcome.open_points]
        points += [
            f"{path.name} could not be read, so fields that it spoke of may still be set"
            for path in self.aside
        ]
        points += [f"perhaps ours: {suspect}" for suspect in self.suspects]
        return tuple(points)

    @property
    def next_step(self) -> str:
        """What to do about what is left."""
        failed = [outcome.receipt for outcome in self.outcomes if outcome.failed]
        left = any(part.ending is Ending.LEFT for outcome in self.outcomes for part in outcome.details)
        steps = []
        if failed:
            steps.append(
                f"remove what stopped it, then `ackward undo {' '.join(failed)}` (`ackward status` shows what is left)"
            )
        if left:
            steps.append("what was left is not as we set it, and yours to decide")
        if self.aside:
            lie = ", ".join(map(str, self.aside))
            steps.append(f"look for what is still set in {lie}, and at routes with `ip route show table all`")
        return "; ".join(steps)


def undo_all(store: Receipts, namespaces: Iterable[Namespace]) -> Cleared:
    """Undo every receipt, sweep ``namespaces`` for what is ours without one, move damaged files aside.

    Of ``namespaces`` those go altogether that a run of ours left behind when it was killed.
    """
    require_net_admin()
    namespaces = list(namespaces)
    outcomes = [_undo(receipt, store) for receipt in store.load().receipts]
    with store.lock():
        contents = store.load()
        # An undo failed there, or an apply came in between: the receipt knows what is whose.
        kept = {receipt.namespace.inode for receipt in contents.receipts}
        swept = [_sweep(namespace, store) for namespace in namespaces if namespace.inode not in kept]
        outcomes += [withdraw(persistent, store) for persistent in persistence.without_receipt(store)]
        ended = lease.sweep(store)
        ended += [
            f"namespace {namespace.name}, left by a run that was killed"
            for namespace in namespaces
            if remove_abandoned(namespace)
        ]
        ended += [f"{path}, left by a run that was killed" for path in leftovers.remove_directories()]
        aside = tuple(store.set_aside(path) for path in contents.damaged)
    return Cleared(
        outcomes=tuple(outcomes),
        swept=(*(words for one in swept for words in one.removed), *ended),
        aside=aside,
        suspects=tuple(words for one in swept for words in one.suspects) if aside else (),
    )


def withdraw(persistent: Persistent, store: Receipts) -> UndoOutcome:
    """Remove a unit of ours whose remedy is not in force."""
    try:
        part = persistence.withdraw(persistent, store.systemd)
    except AckwardError as error:
        part = Undone(ending=Ending.FAILED, words=f"{persistent.unit}: {error}")
    return UndoOutcome(receipt=persistent.id, remedy=persistent.request[0], details=(part,))


def _undo(receipt: Receipt, store: Receipts) -> UndoOutcome:
    try:
        return remedies.load(receipt.remedy).undo(receipt, store)
    except (AckwardError, OSError) as error:  # one receipt must not keep the others from their undo
        failed = Undone(ending=Ending.FAILED, words=f"{receipt.id}: {error}")
        return UndoOutcome(receipt=receipt.id, remedy=receipt.remedy, details=(failed,))


def _sweep(namespace: Namespace, store: Receipts) -> Swept:
    found = []
    for name in remedies.NAMES:
        try:
            found.append(remedies.load(name).sweep(namespace, store.directory))
        except AckwardError as error:
            found.append(Swept(suspects=(f"the namespace {namespace.name} could not be searched: {error}",)))
        except OSError:
            if namespace.is_there:
                raise
            break  # it ended since it was listed, with all that was in it
    return Swept(
        removed=tuple(words for one in found for words in one.removed),
        suspects=tuple(words for one in found for words in one.suspects),
    )
