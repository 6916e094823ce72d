"""The bypass's effects on the kernel: one engine, pinned."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.errors import Unavailable
from ackward.kernel.bpffs import require_bpffs
from ackward.kernel.btf import kernel_btf
from ackward.kernel.namespaces import Namespace
from ackward.kernel.probes import cgroup2_mount, cgroup_directory
from ackward.model.changes import BypassInstalled, Change
from ackward.model.plan import Ending, Look, Plan, Refusal, State, Undone
from ackward.model.scopes import BypassScope, Scope
from ackward.remedies import transaction
from ackward.remedies.bpf_pins import PinnedRemedy, ownerless
from ackward.remedies.bypass import capabilities
from ackward.remedies.bypass import plan as planning
from ackward.remedies.bypass.engine import Engine
from ackward.remedies.bypass.pinned import PinnedEngine, all_pinned
from ackward.remedies.bypass.plan import Facts
from ackward.remedies.bypass.rules import Rules
from ackward.remedies.bypass.words import words


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
            next_step="take a newer kernel; `ackward fix quickack` or `nodelay` ends stalls on this one",
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
    cgroup_id = 0 if scope.cgroup is None else cgroup_directory(scope.cgroup).stat().st_ino
    return Rules(scope, netns=netns, cgroup_id=cgroup_id)


class Bypass:
    """The effects, inside ``namespace``, for the receipt in the file ``receipt``."""

    def __init__(self, namespace: Namespace, receipt: Path) -> None:
        self._pinned = PinnedEngine(receipt.stem, transaction.identify(namespace).cookie or 0)

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


def sweep(namespace: Namespace, directory: Path) -> transaction.Swept:
    """Remove engines of a namespace that have no receipt, and those whose namespace is gone.

    ``directory`` is that of the receipts: an engine of another namespace that has one is left to its undo.
    """
    removed = []
    for pinned, _ in ownerless(all_pinned(), namespace, directory):
        drained = pinned.remove()
        removed.append(f"the engine {pinned.receipt}" + (f"; {drained}" if drained else ""))
    return transaction.Swept(tuple(removed))


REMEDY = PinnedRemedy(planning.NAME, plan, Bypass, sweep, PinnedEngine)
