"""The programs and maps of the bypass in the kernel: loaded, attached, pinned so that they outlive us, told, asked.

Whoever is a member runs its programs until it closes, also when the engine has been closed and is not pinned:
:mod:`ackward.remedies.bypass.pinned` says why nothing is lost then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.kernel import sock_maps
from ackward.kernel.bpf_syscall import AttachType
from ackward.kernel.bpffs import CgroupLink, Pinnable, Table
from ackward.kernel.libbpf import Object
from ackward.kernel.probes import cgroup2_mount
from ackward.remedies.bypass import rules
from ackward.remedies.bypass.rules import (
    COUNTERS_SIZE,
    LEARNED_SIZE,
    RULES_SIZE,
    SERVICE_SIZE,
    SURVEY_SIZE,
    Counters,
    Rules,
    Service,
    Survey,
)

PROGRAM = Path(__file__).with_name("bypass.bpf.o")
#: What is pinned, by the name of its pin. Without the programs that members run these would end with their maps.
_MAPS = {
    "rules": "scope_map",
    "counters": "counters_map",
    "pairs": "pairs",
    "members": "members",
    "ends": "ends",
    "listed": "listed",
    "survey": "survey_map",
    "services": "services",
}
_PROGRAMS = {"look": "look"}
PINS = (*_MAPS, *_PROGRAMS)
LINK = "link_connections"
_PURPOSE = "connections cannot be joined; nothing was changed"


class Engine:
    """One bypass. Its parts are descriptors; what is pinned lives on when they are closed."""

    def __init__(self, parts: dict[str, Pinnable], link: CgroupLink | None) -> None:
        self._parts = parts
        self._link = link

    @classmethod
    def load(cls, told: Rules) -> Self:
        """Load it, attached to no connection yet. Raises :class:`Unavailable`."""
        with Object(PROGRAM, purpose=_PURPOSE) as programs:
            programs.load()
            programs.map("scope_map").put(bytes(4), told.pack())
            members = programs.map("members").fd
            # Before the first member: a socket runs the programs that its map had when it joined.
            sock_maps.attach(programs.program_fd("send"), members, sock_maps.SK_MSG_VERDICT)
            sock_maps.attach(programs.program_fd("received"), members, sock_maps.SK_SKB_VERDICT)
            parts: dict[str, Pinnable] = {
                pin: Table(os.dup(programs.map(name).fd)) for pin, name in _MAPS.items()
            }
            parts |= {pin: Pinnable(os.dup(programs.program_fd(name))) for pin, name in _PROGRAMS.items()}
            parts["connections"] = Pinnable(os.dup(programs.program_fd("connections")))
        return cls(parts, None)

    @classmethod
    def at(cls, directory: Path) -> Self:
        """The one pinned in ``directory``. Raises FileNotFoundError if a part of it is not there."""
        parts: dict[str, Pinnable] = {}
        try:
            for pin in _MAPS:
                parts[pin] = Table.at(directory / pin)
            for pin in _PROGRAMS:
                parts[pin] = Pinnable.at(directory / pin)
            try:
                link = CgroupLink.at(directory / LINK)
            except FileNotFoundError:
                link = None
        except BaseException:
            for part in parts.values():
                part.close()
            raise
        return cls(parts, link)

    def attach(self, cgroup: Path) -> None:
        """Let connections of the cgroup (v2) join, beside what others attached there."""
        self._link = CgroupLink.attach(
            self._parts["connections"].fd, cgroup, AttachType.CGROUP_SOCK_OPS, consequence=_PURPOSE
        )

    def pin(self, directory: Path) -> None:
        """Pin all parts but the link in ``directory``."""
        for pin in PINS:
            self._parts[pin].pin(directory / pin)

    def pin_link(self, directory: Path) -> None:
        """Pin the link: from then on connections join whatever becomes of us."""
        assert self._link, "not attached"
        self._link.pin(directory / LINK)

    def _table(self, name: str) -> Table:
        table = self._parts[name]
        assert isinstance(table, Table)
        return table

    @property
    def cgroup_id(self) -> int:
        """The cgroup that it is attached to; 0 if to none (any more)."""
        return self._link.cgroup_id if self._link else 0

    @property
    def switches(self) -> tuple[bool, bool]:
        """Whether connections still join, and whether messages are still redirected."""
        return rules.switches(self._table("rules").get(0, RULES_SIZE) or bytes(8))

    def switch(self, *, joining: bool, redirecting: bool) -> None:
        """Turn both on or off. Members stay members."""
        table = self._table("rules")
        table.put(0, rules.without(table.get(0, RULES_SIZE) or b"", joining=joining, redirecting=redirecting))

    def counters(self) -> Counters:
        """What it counted since it was loaded."""
        return Counters.parse(sock_maps.of_each_processor(self._parts["counters"].fd, COUNTERS_SIZE))

    def survey(self) -> Survey:
        """The members and their queues as they are now."""
        sock_maps.run_once(self._parts["look"].fd)
        return Survey.parse(self._table("survey").get(0, SURVEY_SIZE) or bytes(SURVEY_SIZE))

    def services(self) -> list[Service]:
        """Whose ways were learned."""
        table = self._parts["services"].fd
        return [
            Service.parse(key, value) for key, value in sock_maps.entries(table, SERVICE_SIZE, LEARNED_SIZE)
        ]

    def detach(self) -> None:
        """No connection meets it any more; members stay members."""
        if self._link:
            self._link.detach()
            self._link.close()
            self._link = None

    def close(self) -> None:
        """Let go of the descriptors."""
        if self._link:
            self._link.close()
            self._link = None
        for part in self._parts.values():
            part.close()
        self._parts = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def attached(told: Rules, cgroup: Path | None = None) -> Iterator[Engine]:
    """An engine for a while, not pinned; ``cgroup``: where connections are seen, the whole hierarchy if none is named.

    When it ends, members stay on as long as they live, over TCP: what they wait for is not lost.
    """
    with Engine.load(told) as engine:
        engine.attach(cgroup or cgroup2_mount())
        try:
            yield engine
        finally:
            engine.switch(joining=False, redirecting=False)
