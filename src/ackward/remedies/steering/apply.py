"""Steering's effects on the kernel: the hook for new connections, and the open ones."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.errors import Unavailable, UnknownName
from ackward.kernel import background
from ackward.kernel.bpffs import require_bpffs
from ackward.kernel.namespaces import Namespace
from ackward.kernel.probes import cgroup2_mount, cgroup_directory
from ackward.kernel.processes import cgroups_below
from ackward.model.changes import Change, OpenSocketsSet, SocketOption, SocketsSteered
from ackward.model.plan import Ending, Look, State, Undone
from ackward.model.scopes import SocketScope
from ackward.remedies import transaction
from ackward.remedies.bpf_pins import ownerless
from ackward.remedies.steering import connections, probing
from ackward.remedies.steering.connections import (
    Counting,
    Restoring,
    Setting,
    Unreached,
    counted,
)
from ackward.remedies.steering.hook import Hook, hooks
from ackward.remedies.steering.plan import Facts, overlap
from ackward.remedies.steering.record import Record

#: The first PID namespace of a machine: PROC_PID_INIT_INO in include/linux/proc_ns.h.
_FIRST_PID_NAMESPACE = 0xEFFFFFFC


def facts(namespace: Namespace, scope: SocketScope, option: SocketOption) -> Facts:
    """What a plan needs to know. Raises an error that names what is missing for it."""
    transaction.require_net_admin()
    require_bpffs()
    if scope.pid is not None:
        _require_process(scope)
    probing.require(option)
    identity = transaction.identify(namespace)
    counting = Counting(option)
    unreached = connections.go_through(namespace, scope, counting)
    wanted = _record(identity.cookie or 0, scope, option)
    return Facts(
        namespace=identity,
        open=counting.open,
        already=counting.already,
        unreached=unreached.words,
        overlapping=_overlapping(wanted, scope, same_too=False),
        sees_creation=_in_first_pid_namespace(),
    )


def _record(netns: int, scope: SocketScope, option: SocketOption) -> Record:
    """What the hook is told; the numbers of a nested PID namespace mean other processes to it."""
    record = Record.of(netns, scope, option)
    return record if _in_first_pid_namespace() else record._replace(start_time=0)


def _in_first_pid_namespace() -> bool:
    return os.stat("/proc/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE  # noqa: PTH116 - a link, not a path


def _require_process(scope: SocketScope) -> None:
    assert scope.pid is not None
    if background.start_time_of(scope.pid) != scope.start_time:
        raise UnknownName(
            f"the process {scope.pid} has ended",
            consequence="nothing was changed",
            next_step="look its successor up with `pgrep`, or name a port or cgroup, which outlive processes",
        )
    if not connections.may_be_reached(scope.pid):
        raise Unavailable(
            f"the process {scope.pid} may not be looked into (ptrace: CAP_SYS_PTRACE, kernel.yama.ptrace_scope, or a "
            "kernel without pidfd_getfd)",
            consequence="its connections cannot be reached; nothing was changed",
            next_step="run as root of the host, or name `--port` or `--cgroup`: new connections need no such right",
        )


def _overlapping(wanted: Record, scope: SocketScope, *, same_too: bool) -> tuple[str, ...]:
    """The receipts whose hooks set the same option on connections of this scope."""
    found = []
    for hook in hooks():
        record = hook.record()
        if record is None or not record.overlaps(wanted) or not _share_cgroups(hook, scope):
            continue
        same = (
            record._replace(noted_open=0) == wanted
            and hook.cgroup_id() == cgroup_directory(scope.cgroup).stat().st_ino
        )
        # The same request is no conflict for a plan: it has its receipt already.
        if same_too or not same:
            found.append(hook.receipt)
    return tuple(found)


def _share_cgroups(hook: Hook, scope: SocketScope) -> bool:
    """Whether one of both cgroups holds the other; a hook that is attached nowhere (any more) holds nothing."""
    cgroup, theirs = cgroup_directory(scope.cgroup), hook.cgroup_id()
    above = {
        place.stat().st_ino for place in (cgroup, *cgroup.parents) if place.is_relative_to(cgroup2_mount())
    }
    return theirs in above or theirs in cgroups_below(cgroup)


class Steering:
    """The effects, inside ``namespace``, for the receipt in the file ``receipt``."""

    def __init__(self, namespace: Namespace, receipt: Path) -> None:
        self._namespace = namespace
        self._cookie = transaction.identify(namespace).cookie or 0
        self._hook = Hook(receipt.stem, self._cookie)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def make(self, change: Change) -> Change:
        """Make the change; open connections give it back with their number."""
        match change:
            case SocketsSteered():
                self._install(change)
            case OpenSocketsSet():
                return change.model_copy(update={"count": self._set_open(change)})
            case _:
                raise TypeError(change)
        return change

    def _install(self, change: SocketsSteered) -> None:
        scope = change.scope
        require_bpffs()
        if scope.pid is not None:
            _require_process(scope)
        record = _record(self._cookie, scope, change.option)
        if taken := _overlapping(record, scope, same_too=True):
            raise overlap(taken).as_error()
        self._hook.install(record, cgroup_directory(scope.cgroup), lambda: self._mark_members(scope))

    def _mark_members(self, scope: SocketScope) -> None:
        if scope.pid is None:
            return
        with self._hook.table("members") as members:
            connections.of_process(scope.pid, lambda _, copy: members.put(copy, b"\1\0\0\0"))

    def _set_open(self, change: OpenSocketsSet) -> int:
        with self._hook.table("notes") as notes:
            setting = Setting(change.option, notes)
            connections.go_through(self._namespace, change.scope, setting)
        record = self._hook.record()
        assert record is not None
        self._hook.tell(record._replace(noted_open=1))
        return setting.count

    def look(self, change: Change) -> Look:
        """Read the change back."""
        match change:
            case SocketsSteered():
                return self._look_at_hook(change)
            case OpenSocketsSet():
                return self._look_at_open(change)
            case _:
                raise TypeError(change)

    def _look_at_hook(self, change: SocketsSteered) -> Look:
        what = f"the hook for {change.scope.words}"
        counters = self._hook.counters()
        if counters is None:
            return Look(state=State.GONE, words=f"{what} is gone")
        if not self._hook.cgroup_id():
            return Look(
                state=State.GONE,
                words=f"{what} is not attached: its cgroup was removed, or someone detached it",
            )
        scope = change.scope
        if scope.pid is not None and background.start_time_of(scope.pid) != scope.start_time:
            return Look(state=State.GONE, words=f"{what} waits for nothing: the process has ended")
        words = f"{what} is attached: {counted(counters.seen, 'connection')} seen, {counters.set} set"
        others = (
            (counters.already, "had it already"),
            (counters.failed, "refused it"),
            (counters.overruled, "decided by their program since"),
        )
        return Look(
            state=State.IN_FORCE, words=", ".join([words, *(f"{n} {what}" for n, what in others if n)])
        )

    def _look_at_open(self, change: OpenSocketsSet) -> Look:
        record = self._hook.record()
        if record is None or not record.noted_open:
            return Look(state=State.GONE, words="open connections were not gone through")
        counting = Counting(change.option)
        unreached = connections.go_through(self._namespace, change.scope, counting)
        words = f"{counting.already} of {counted(counting.open)} with {change.option.words}"
        return Look(state=State.IN_FORCE, words="; ".join([words, *unreached.words]))

    def unmake(self, change: Change) -> Undone:
        """Take the change back; the hook goes first whichever is asked for, so that nothing is set behind our back."""
        match change:
            case OpenSocketsSet():
                self._hook.detach()
                return self._restore(change.scope, change.option)
            case SocketsSteered():
                self._hook.detach()
                restored = self._restore(change.scope, change.option)
                if restored.ending is Ending.FAILED:
                    return restored
                ending = Ending.UNDONE if self._hook.remove() else Ending.NOTHING
                return Undone(ending=ending, words=f"{ending.value}: {change.words}")
            case _:
                raise TypeError(change)

    def _restore(self, scope: SocketScope, option: SocketOption) -> Undone:
        try:
            notes = self._hook.table("notes")
        except FileNotFoundError:
            return Undone(
                ending=Ending.NOTHING, words=f"{Ending.NOTHING.value}: no connection has a note of ours"
            )
        with notes:
            restoring = Restoring(option, notes)
            unreached = connections.go_through(self._namespace, scope, restoring, any_holder=True)
        ending = _ending(restoring, unreached)
        words = f"{ending.value}: {option.words} taken off {counted(restoring.count)}"
        more = (
            (restoring.changed, "changed since by someone else"),
            (restoring.failed, "refused"),
        )
        parts = [
            words,
            *(f"{n} {what}" for n, what in more if n),
            *(f"{n}, which may keep it" for n in unreached.words),
        ]
        return Undone(ending=ending, words="; ".join(parts))


def _ending(restoring: Restoring, unreached: Unreached) -> Ending:
    if restoring.failed or unreached.denied:
        return Ending.FAILED
    return Ending.LEFT if restoring.changed or unreached.words else Ending.UNDONE


def sweep(remedy: str, namespace: Namespace, directory: Path) -> transaction.Swept:
    """Remove the remedy's hooks in a namespace, and those whose namespace is gone; restore what they noted.

    ``directory`` is that of the receipts: a hook of another namespace that has one is left to its undo.
    """
    removed = []
    for hook, is_here in ownerless(Hook.all(remedy), namespace, directory):
        words = f"the hook {hook.receipt}"
        hook.detach()
        if is_here and (record := hook.record()) and hook.has("notes"):
            with hook.table("notes") as notes:
                restoring = Restoring(record.socket_option, notes)
                connections.go_through(namespace, SocketScope(), restoring)
            words += f", and {record.socket_option.words} on {counted(restoring.count)}"
        hook.remove()
        removed.append(words)
    return transaction.Swept(tuple(removed))
