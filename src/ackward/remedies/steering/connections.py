"""The open connections of a scope: found through sock_diag and /proc, set and restored through copied descriptors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ackward.kernel import descriptors, sock_diag
from ackward.kernel.bpffs import Table
from ackward.kernel.descriptors import Holder, Holders, reach, read_option, write_option
from ackward.kernel.namespaces import Namespace
from ackward.kernel.probes import cgroup_directory
from ackward.kernel.processes import cgroups_below
from ackward.kernel.sock_diag import SocketRecord, TcpState
from ackward.model.changes import SocketOption
from ackward.model.scopes import SocketScope
from ackward.remedies.steering.record import NOTE_SIZE, NUMBERS, Note, in_scope, wanted

#: Those that may still send. Connections before these meet the hook, those after have nothing left to send.
OPEN = (TcpState.ESTABLISHED, TcpState.CLOSE_WAIT)
#: A connection that waits in an accept queue has no descriptor yet, and one may close while /proc is read. Those have
#: this long to be accepted or to be gone: so many looks, so many seconds apart.
_LOOKS, _APART = 5, 0.01

Visit = Callable[[int, int], None]


def counted(count: int, what: str = "open connection") -> str:
    """So many of them, in words."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


@dataclass
class Unreached:
    """Open connections of the scope that could not be gone to, by reason."""

    denied: int = 0
    classed: int = 0
    queued: int = 0
    unheld: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        """One phrase for each reason that there was."""
        reasons = (
            (self.denied, "held by processes that may not be looked into (ptrace)"),
            (self.classed, "of another net_cls or net_prio class (cgroup v1), which a copy would change"),
            (self.queued, "not yet accepted by their program"),
            (self.unheld, "that no process has a descriptor of (the kernel's own, MPTCP, io_uring)"),
        )
        return tuple(f"{counted(count)} {why}" for count, why in reasons if count)


def go_through(
    namespace: Namespace, scope: SocketScope, visit: Visit, *, any_holder: bool = False
) -> Unreached:
    """Call ``visit(inode, descriptor)`` once for each open connection of the scope that can be reached.

    ``any_holder``: also those that the scope's process has passed on to others.
    """
    cgroups = cgroups_below(cgroup_directory(scope.cgroup)) if scope.cgroup else {}
    pids = None if scope.pid is None or any_holder else [scope.pid]
    visited: set[int] = set()
    unreached = Unreached()
    nowhere: dict[int | None, SocketRecord] | None = None
    for look in range(_LOOKS):
        if look:
            time.sleep(_APART)
        records = [
            record
            for record in sock_diag.dump(namespace, OPEN)
            if in_scope(scope, record.local, record.remote, record.cgroup_id, cgroups)
        ]
        holders = descriptors.holders(pids)
        found = [
            (record.inode, holders.of[record.inode][0]) for record in records if record.inode in holders.of
        ]
        kept_off = reach([one for one in found if one[0] not in visited], visit)
        visited.update(inode for inode, _ in found)
        unreached.denied += kept_off.denied
        unreached.classed += kept_off.classed
        if pids is not None:
            return unreached
        # Only those of the first look are waited for: later ones have met the hook, or none.
        nowhere = {
            record.cookie: record
            for record in records
            if record.inode not in holders.of and (nowhere is None or record.cookie in nowhere)
        }
        if not nowhere:
            return unreached
    assert nowhere is not None
    unreached.queued = sum(record.inode == 0 for record in nowhere.values())
    unheld = len(nowhere) - unreached.queued
    if holders.hidden:
        unreached.denied += unheld
    else:
        unreached.unheld = unheld
    return unreached


def of_process(pid: int, visit: Visit) -> None:
    """Call ``visit(inode, descriptor)`` for each TCP socket of a process, listening ones too."""
    holders = descriptors.holders([pid])

    def only_tcp(inode: int, copy: int) -> None:
        # A socket of another protocol has no such option: that is how they are told apart.
        if read_option(copy, *NUMBERS["TCP_NODELAY"][::2]) is not None:
            visit(inode, copy)

    reach(((inode, owners[0]) for inode, owners in holders.of.items()), only_tcp)


def may_be_reached(pid: int) -> bool:
    """Whether this process may copy descriptors of that one."""
    holders = descriptors.holders([pid])
    return not holders.hidden and not reach(_some(holders), lambda _inode, _copy: None).denied


def _some(holders: Holders) -> Iterable[tuple[int, Holder]]:
    return [(inode, owners[0]) for inode, owners in holders.of.items()][:1]


class Counting:
    """A visit that only counts: how many there are, and how many have the option already."""

    def __init__(self, option: SocketOption) -> None:
        self.open = self.already = 0
        self._option, self._numbers = option, NUMBERS[option.name]

    def __call__(self, _inode: int, copy: int) -> None:
        before = read_option(copy, self._numbers.level, self._numbers.in_user_space)
        self.open += 1
        self.already += before is not None and wanted(self._option, before) == before


class Setting:
    """A visit that sets the option, noting first what it was."""

    def __init__(self, option: SocketOption, notes: Table) -> None:
        self.count = self.failed = 0
        self._option, self._notes, self._numbers = option, notes, NUMBERS[option.name]

    def __call__(self, _inode: int, copy: int) -> None:
        level, _, number = self._numbers
        before = read_option(copy, level, number)
        if before is None:
            self.failed += 1
            return
        after = wanted(self._option, before)
        if after == before:
            return
        try:
            self._notes.put(copy, Note(before, entering=True).pack())
        except OSError:  # the socket has no room for it (net.core.optmem_max): counted, as for a hook
            self.failed += 1
            return
        if write_option(copy, level, number, after):
            self._notes.delete(copy)
            self.failed += 1
            return
        self._notes.put(copy, Note(before).pack())
        self.count += 1


class Restoring:
    """A visit that gives a noted socket back what it had, unless someone changed it since."""

    def __init__(self, option: SocketOption, notes: Table) -> None:
        self.count = self.changed = self.failed = 0
        self._option, self._notes, self._numbers = option, notes, NUMBERS[option.name]

    def __call__(self, _inode: int, copy: int) -> None:
        data = self._notes.get(copy, NOTE_SIZE)
        if data is None:
            return
        before, mask = Note.parse(data).before, self._option.mask
        level, _, number = self._numbers
        now = read_option(copy, level, number)
        if now is None:
            self.failed += 1
            return
        if (now ^ before) & mask:
            if (now ^ self._option.value) & mask:
                self.changed += 1
            elif write_option(copy, level, number, now & ~mask | before & mask):
                self.failed += 1
                return
            else:
                self.count += 1
        self._notes.delete(copy)
