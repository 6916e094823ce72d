"""Early: the SYN begins the far connection while the near handshake still runs.

Laws: what SYNs alone can cause is bounded, in number pending and in rate; beyond that a client is served when it is
accepted, as without this step. An attempt that nobody claims in time is taken back.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ackward.errors import Unavailable
from ackward.gateway.connection import tell_unjoined
from ackward.gateway.counters import Count
from ackward.gateway.limits import TokenBucket
from ackward.gateway.listeners import Entrance
from ackward.gateway.loop import READ
from ackward.gateway.resources import Deadlines, Resources
from ackward.gateway.settings import Address, End
from ackward.gateway.sockets import is_own
from ackward.gateway.targets import MAPPED, Target, load, uncertain
from ackward.gateway.upstream import Attempt
from ackward.kernel.bpf_syscall import AttachType
from ackward.kernel.bpffs import CgroupLink
from ackward.kernel.libbpf import Object
from ackward.kernel.probes import cgroup2_mount
from ackward.kernel.processes import cgroup_of_process
from ackward.kernel.record_ring import RecordRing

_PROGRAM = Path(__file__).with_name("early.bpf.o")
_PURPOSE = (
    "SYNs cannot begin connections (the step `early`: `steps.early = false` or --no-early goes without)"
)
#: struct syn: two ends of 16 bytes and a port, the family, the target.
_SYN: Final = struct.Struct("=16sI16sIII")


def own_cgroup() -> Path:
    """The directory of this process' cgroup v2: sockets that it makes belong there. Raises :class:`Unavailable`."""
    try:
        mount = cgroup2_mount()
    except Unavailable as error:
        error.consequence = _PURPOSE
        raise
    return mount / (cgroup_of_process("self") or "/").lstrip("/")


class SynEvents:
    """The program in the kernel, and what it tells. All of it ends with this process."""

    def __init__(self, targets: list[Target], *, netns: int, worker: int, workers: int) -> None:
        """``netns``: the namespace's cookie. Raises an error that names what is missing."""
        self._program = Object(_PROGRAM, purpose=_PURPOSE)
        try:
            load(self._program, targets, netns=netns, workers=workers, worker=worker)
            self._link = self._attach()
            self.ring = RecordRing(self._program.map("syns"))
        except BaseException:
            self._program.close()
            raise

    def _attach(self) -> CgroupLink:
        program = self._program.program_fd("syn_arrived")
        return CgroupLink.attach(program, own_cgroup(), AttachType.CGROUP_SOCK_OPS, consequence=_PURPOSE)

    def read(self) -> list[tuple[Address, Address, int]]:
        """What came since: (client, local address, target's number)."""
        found = []
        for record in self.ring.drain():
            client, client_port, local, local_port, _, target = _SYN.unpack(record)
            found.append(((_host(client), client_port), (_host(local), local_port), target))
        return found

    def close(self) -> None:
        """Detach, and free everything."""
        self._link.close()
        self.ring.close()
        self._program.close()


def _host(sixteen: bytes) -> str:
    """As accept(2) words it: the client is claimed by it."""
    if sixteen.startswith(MAPPED):
        return socket.inet_ntop(socket.AF_INET, sixteen[len(MAPPED) :])
    return socket.inet_ntop(socket.AF_INET6, sixteen)


class Early:
    """Attempts that SYNs began, until their clients are accepted."""

    def __init__(
        self, resources: Resources, events: SynEvents, targets: list[Target], doors: Mapping[int, Entrance]
    ) -> None:
        """``doors``: the entrance of each listener, by its number, that may begin early."""
        self._resources, self._events = resources, events
        # Where its interface decides whose a SYN is it begins nothing: the program is not told of the interface.
        without = uncertain(targets)
        self._doors = {
            number: doors[target.listener]
            for number, target in enumerate(targets)
            if target.listener in doors and number not in without
        }
        self._pending: dict[tuple[Address, Address], tuple[Attempt, float, Entrance]] = {}
        limits = resources.settings.limits
        self._bucket = TokenBucket(limits.early_rate, time.monotonic())
        self._deadlines = Deadlines(resources.loop, limits.early_wait)
        resources.loop.add(events.ring.fileno(), READ, self._ready)

    def _ready(self, _: int) -> None:
        counters, limits = self._resources.counters, self._resources.settings.limits
        now = time.monotonic()
        for client, local, target in self._events.read():
            door = self._doors.get(target)
            key = (client, local)
            if door is None or key in self._pending or (door.is_transparent and is_own(local[0])):
                continue  # the last: a connection to this host itself, whose listener is none of ours
            destination = door.wanted(local)
            if (
                destination is None
                or len(self._pending) >= limits.early_pending
                or not self._bucket.take(now)
            ):
                counters.add(Count.EARLY_REFUSED)
                continue
            counters.add(Count.EARLY_BEGUN)
            self._pending[key] = (door.begin(destination, client), now, door)
            self._deadlines.add(lambda key=key, began=now: self._overdue(key, began))  # type: ignore[misc]
        self._count()

    def claim(self, client: Address, local: Address) -> tuple[Attempt, float] | None:
        """The attempt that this client's SYN began, and when. A SYN that was not told of yet is looked for."""
        if (client, local) not in self._pending:
            self._ready(READ)
        found = self._pending.pop((client, local), None)
        if found is None:
            return None
        self._resources.counters.add(Count.EARLY_CLAIMED)
        self._count()
        return found[0], found[1]

    def _overdue(self, key: tuple[Address, Address], began: float) -> None:
        waiting = self._pending.get(key)
        if waiting is None or waiting[1] != began:
            return
        del self._pending[key]
        self._give_up(key, waiting)
        self._count()

    def _give_up(self, key: tuple[Address, Address], waiting: tuple[Attempt, float, Entrance]) -> None:
        attempt, began, door = waiting
        end = attempt.end or End.UNCLAIMED
        attempt.abandon()
        client, local = key
        destination = door.wanted(local) or local
        tell_unjoined(self._resources, door, client, destination, began, end)

    def _count(self) -> None:
        self._resources.counters.set(Count.EARLY_PENDING, len(self._pending))

    def close(self) -> None:
        """Take back all attempts that wait, and hear of no SYN any more."""
        self._resources.loop.remove(self._events.ring.fileno())
        for key, waiting in self._pending.items():
            self._give_up(key, waiting)
        self._pending.clear()
        self._count()
        self._events.close()
