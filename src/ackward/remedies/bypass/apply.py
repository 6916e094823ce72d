"""The bypass's effects on the kernel: one engine, pinned."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.errors import Unavailable
from ackward.kernel.bpffs import require_bpffs
from ackward.kernel.btf import kernel_btf
from ackward.kernel.namespaces import Namespace
from ackward.kernel.probes import cgroup2_mount
from ackward.model.changes import BypassInstalled, Change
from ackward.model.plan import Ending, Look, Plan, Receipt, Refusal, State, Undone, UndoOutcome
from ackward.model.scopes import BypassScope, Scope
from ackward.remedies import transaction
from ackward.remedies.bypass import capabilities
from ackward.remedies.bypass import plan as planning
from ackward.remedies.bypass.engine import Engine
from ackward.remedies.bypass.pinned import Pinned, all_pinned
from ackward.remedies.bypass.plan import Facts
from ackward.remedies.bypass.rules import Rules
from ackward.remedies.bypass.words import words
from ackward.remedies.receipts import Receipts
from ackward.remedies.steering.apply import cookies
from ackward.remedies.transaction import Occasion


def plan(namespace: Namespace, scope: Scope) -> Plan | Refusal:
    """What the bypass would change in ``namespace``; leaves nothing changed."""
    assert isinstance(scope, BypassScope), scope
    transaction.require_net_admin()
    require_bpffs()
    identity = transaction.identify(namespace)
    if identity.cookie is None:
        raise Unavailable(
            "this kernel gives network namespaces no cookie (SO_NETNS_COOKIE, Linux 5.14)",
            consequence="connections of one namespace cannot be told from another's; nothing was changed",
        )
    _require_queue_length()
    found = planning.plan(Facts(identity, capabilities.load()), scope)
    if isinstance(found, Plan):
        Engine.load(_rules(scope, identity.cookie)).close()  # whether this kernel takes it
    return found


def _require_queue_length() -> None:
    """Raise :class:`Unavailable` unless the kernel says how much waits in a reader's queue."""
    queue = kernel_btf().struct("sk_psock")
    if queue is None or "msg_tot_len" not in {member.name for member in queue.members}:
        raise Unavailable(
            "this kernel does not tell how many bytes wait for a joined reader (sk_psock.msg_tot_len, which came "
            "in 2026 with the fix of FIONREAD, also to stable releases)",
            consequence="a slow reader could not stop its writer; nothing was changed",
            next_step="use a kernel that has the fix, or `ackward fix nodelay` and `quickack`",
        )


def _rules(scope: BypassScope, netns: int) -> Rules:
    cgroup_id = 0 if scope.cgroup is None else _cgroup(scope).stat().st_ino
    return Rules(scope, netns=netns, cgroup_id=cgroup_id)


def _cgroup(scope: BypassScope) -> Path:
    return cgroup2_mount() / (scope.cgroup or "").lstrip("/")


class Bypass:
    """The effects, inside ``namespace``, for the receipt in the file ``receipt``."""

    def __init__(self, namespace: Namespace, receipt: Path) -> None:
        self._pinned = Pinned(receipt.stem, transaction.identify(namespace).cookie or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def make(self, change: Change) -> Change:
        """Load, pin and attach the engine."""
        assert isinstance(change, BypassInstalled), change
        require_bpffs()
        # An end may be in any cgroup: the program sees all connections, and its scope decides.
        self._pinned.install(_rules(change.scope, self._pinned.netns), cgroup2_mount())
        return change

    def look(self, change: Change) -> Look:
        """Read the engine back."""
        assert isinstance(change, BypassInstalled), change
        what = f"the bypass for {change.scope.words}"
        try:
            engine = self._pinned.engine()
        except FileNotFoundError:
            return Look(state=State.GONE, words=f"{what} is gone")
        with engine:
            if not engine.cgroup_id:
                return Look(state=State.GONE, words=f"{what} is not attached: someone detached it")
            if not all(engine.switches):
                return Look(state=State.PARTLY, words=f"{what} is being undone: draining")
            return Look(
                state=State.IN_FORCE,
                words=f"{what}: {words(engine.counters(), engine.survey(), engine.services())}",
            )

    def unmake(self, change: Change) -> Undone:
        """Stop joining and redirecting, let readers read, take the pins away."""
        assert isinstance(change, BypassInstalled), change
        drained = self._pinned.remove()
        if drained is None:
            return Undone(ending=Ending.NOTHING, words=f"{Ending.NOTHING.value}: {change.words}")
        return Undone(ending=Ending.UNDONE, words=f"{Ending.UNDONE.value}: {change.words}; {drained}")


class BypassRemedy(transaction.Remedy):
    """It outlives its namespace: pins are files of the host."""

    def undo_steps(
        self, receipt: Receipt, store: Receipts, occasion: Occasion = Occasion.ASKED
    ) -> Generator[str, None, UndoOutcome]:
        """As for all remedies; when the namespace is gone, with its sockets, the engine goes too."""
        transaction.require_net_admin()
        pinned = Pinned(receipt.id, receipt.namespace.cookie or 0)
        if pinned.is_there and transaction.find(receipt.namespace) is None:
            pinned.remove()
        return (yield from super().undo_steps(receipt, store, occasion))


def sweep(namespace: Namespace, directory: Path) -> transaction.Swept:
    """Remove engines of a namespace that have no receipt, and those whose namespace is gone.

    ``directory`` is that of the receipts: an engine of another namespace that has one is left to its undo.
    """
    ours = all_pinned()
    cookie = transaction.identify(namespace).cookie if ours else None
    alive = cookies() if any(one.netns != cookie for one in ours) else set()
    removed = []
    for pinned in ours:
        has_receipt = (directory / f"{pinned.receipt}.json").exists()
        if pinned.netns != cookie and (pinned.netns in alive or has_receipt):
            continue
        drained = pinned.remove()
        removed.append(f"the engine {pinned.receipt}" + (f"; {drained}" if drained else ""))
    return transaction.Swept(tuple(removed))


REMEDY = BypassRemedy(planning.NAME, plan, Bypass, sweep)
