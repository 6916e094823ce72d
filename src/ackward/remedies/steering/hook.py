"""The hook in the kernel: loaded, attached, pinned so that it outlives us, read back, taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ackward.errors import PrivilegeMissing
from ackward.kernel.bpf_syscall import AttachType
from ackward.kernel.bpffs import CgroupLink, Table
from ackward.kernel.libbpf import Object
from ackward.remedies.bpf_pins import BpfPins
from ackward.remedies.steering.record import COUNTERS_SIZE, SCOPE_SIZE, Counters, Record

PROGRAM = Path(__file__).with_name("steering.bpf.o")
#: The remedies that have hooks.
STEERED = ("nodelay", "quickack")
_MAPS = {"scope": "scope_map", "counters": "counters_map", "notes": "notes", "members": "members"}
#: In the order in which they are attached: who overrules us and
#: who belongs to the process must be seen before the first connection is set.
_HOOKS = {
    "program_sets": AttachType.CGROUP_SETSOCKOPT,
    "created": AttachType.CGROUP_INET_SOCK_CREATE,
    "established": AttachType.CGROUP_SOCK_OPS,
}
#: What every way to fail means here.
_PURPOSE = "connections cannot be steered; nothing was changed"


@contextmanager
def loaded(record: Record) -> Iterator[Object]:
    """The programs and maps in the kernel, with the scope told, attached to nothing."""
    with Object(PROGRAM, purpose=_PURPOSE) as programs:
        if not record.process:
            programs.leave_out("created")
        programs.load()
        programs.map("scope_map").put(bytes(4), record.pack())
        yield programs


def attach(programs: Object, name: str, cgroup: Path) -> CgroupLink:
    """Attach one program; the link holds as long as its descriptor or its pin."""
    return CgroupLink.attach(programs.program_fd(name), cgroup, _HOOKS[name], consequence=_PURPOSE)


class Hook(BpfPins):
    """The pinned hook of one receipt."""

    def install(self, record: Record, cgroup: Path, before_connections: Callable[[], None]) -> None:
        """Pin the maps, then attach; ``before_connections`` is called when all but the last hook is attached."""
        with loaded(record) as programs:
            self.make_directory()
            for name, map_name in _MAPS.items():
                Table(programs.map(map_name).fd).pin(self.directory / name)
            for name in _HOOKS:
                if name == "created" and not record.process:
                    continue
                if name == "established":
                    before_connections()
                with attach(programs, name, cgroup) as link:
                    link.pin(self._link(name))

    def _link(self, name: str) -> Path:
        return self.directory / f"link_{name}"

    def table(self, name: str) -> Table:
        """One of its maps. Raises FileNotFoundError."""
        return Table.at(self.directory / name)

    def has(self, name: str) -> bool:
        """Whether one of its maps is there: it may have been cut off while it was made."""
        return (self.directory / name).exists()

    def record(self) -> Record | None:
        """What it was told; none when it is not there."""
        try:
            with self.table("scope") as table:
                return Record.parse(table.get(0, SCOPE_SIZE) or b"")
        except FileNotFoundError:
            return None

    def tell(self, record: Record) -> None:
        """Tell it anew."""
        with self.table("scope") as table:
            table.put(0, record.pack())

    def counters(self) -> Counters | None:
        """What it saw and did; none when it is not there."""
        try:
            with self.table("counters") as table:
                return Counters.parse(table.get(0, COUNTERS_SIZE) or b"")
        except FileNotFoundError:
            return None

    def cgroup_id(self) -> int:
        """The cgroup it sets connections of; 0 if it is not attached (any more)."""
        try:
            with CgroupLink.at(self._link("established")) as link:
                return link.cgroup_id
        except FileNotFoundError:
            return 0

    def detach(self) -> bool:
        """Take all programs off their hooks; the maps stay. False if none was there."""
        found = False
        for name in reversed(_HOOKS):
            try:
                with CgroupLink.at(self._link(name)) as link:
                    link.detach()
            except FileNotFoundError:
                continue
            self._link(name).unlink()
            found = True
        return found

    def remove(self) -> bool:
        """Detach and forget everything. False if nothing was there."""
        self.detach()
        for name in _MAPS:
            (self.directory / name).unlink(missing_ok=True)
        try:
            self.remove_directory()
        except FileNotFoundError:
            return False
        return True


def bits_set(netns: int) -> int:
    """The bits of the packet mark that hooks set in the namespace with that cookie.

    Raises :class:`PrivilegeMissing` when a hook may not be read.
    """
    bits = 0
    for hook in (hook for hook in hooks() if hook.netns == netns):
        try:
            record = hook.record()
        except PermissionError as error:
            raise PrivilegeMissing(
                f"the hook {hook.receipt} may not be read (CAP_BPF)",
                consequence="it cannot be told which bits of the packet mark it sets, so none is taken",
                next_step="give the program CAP_BPF",
            ) from error
        if record is not None and record.socket_option.name == "SO_MARK":
            bits |= record.mask
    return bits


def hooks() -> list[Hook]:
    """All that are pinned, of every receipt and namespace."""
    return Hook.all(*STEERED)
