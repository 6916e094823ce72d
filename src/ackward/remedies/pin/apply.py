"""A pin's effects on the kernel: a detour, and a keeper of its own."""

from __future__ import annotations

import os
from pathlib import Path

from ackward.errors import UsageError
from ackward.kernel import background
from ackward.kernel.background import Process
from ackward.kernel.namespaces import Namespace
from ackward.model.changes import Change
from ackward.model.pins import KeeperStarted, ProcessPins
from ackward.model.plan import Ending, Look, Plan, Refusal, State, Undone
from ackward.model.scopes import Scope
from ackward.remedies import transaction
from ackward.remedies.detour import mark_bits
from ackward.remedies.detour.apply import Rerouting, facts
from ackward.remedies.over_netlink import OverNetlink
from ackward.remedies.pin import keeper
from ackward.remedies.pin import plan as planning


def scope_of_this_process() -> ProcessPins:
    """The scope of all sockets that this process pins."""
    start_time = background.start_time_of(os.getpid())
    assert start_time is not None
    return ProcessPins(pid=os.getpid(), start_time=start_time)


def plan(namespace: Namespace, scope: Scope) -> Plan | Refusal:
    """What pinning would change in ``namespace``; reads only."""
    if not isinstance(scope, ProcessPins):
        raise UsageError(
            f"a pin is for sockets of a process, not for {scope.words}",
            consequence="nothing was changed",
            next_step="use the remedy quickack",
        )
    return planning.plan(facts(namespace), mark_bits.read(namespace), scope)


class Pins(OverNetlink):
    """The effects, inside ``namespace``, for the receipt in the file ``receipt``."""

    def __init__(self, namespace: Namespace, receipt: Path) -> None:
        super().__init__(namespace)
        self._receipt = receipt
        self._rerouting = Rerouting(self._netlink, receipt)

    def make(self, change: Change) -> Change:
        """Make the change, verified by reading back."""
        match change:
            case KeeperStarted():
                started = keeper.start(Process(change.owner, change.owner_start_time), self._receipt)
                return change.model_copy(update={"pid": started.pid, "start_time": started.start_time})
        return self._rerouting.make(change)

    def look(self, change: Change) -> Look:
        """Read the change back."""
        match change:
            case KeeperStarted():
                if background.lives(_keeper(change)):
                    return Look(
                        state=State.IN_FORCE,
                        words=f"keeper of process {change.owner} is alive (pid {change.pid})",
                    )
                words = f"keeper of process {change.owner} is not running: nothing takes this back by itself"
                return Look(state=State.GONE, words=words)
        return self._rerouting.look(change)

    def unmake(self, change: Change) -> Undone:
        """Take the change back."""
        match change:
            case KeeperStarted():
                # The keeper itself may undo, and ends with that.
                undone = change.pid == os.getpid() or background.stop_all(
                    _keeper(change), keeper.running(self._receipt)
                )
            case _:
                return self._rerouting.unmake(change)
        ending = Ending.UNDONE if undone else Ending.NOTHING
        return Undone(ending=ending, words=f"{ending.value}: {change.words}")


def _keeper(change: KeeperStarted) -> Process | None:
    return background.noted(change.pid, change.start_time)


def sweep(_: Namespace, directory: Path) -> transaction.Swept:
    """End the keepers of ``directory``. Rules and tables are quickack's to sweep."""
    ended = [f"process {lost.pid}" for lost in keeper.running(directory) if background.stop(lost)]
    return transaction.Swept(removed=tuple(ended))


REMEDY = transaction.Remedy(planning.NAME, plan, Pins, sweep)
