"""The questions behind the probes: pure over what a :class:`~ackward.kernel.machine.Machine` answers.

Each public function makes a question for one row of the table in :mod:`ackward.kernel.probes`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel.bpf_syscall import AttachType, MapType, ProgramType
from ackward.kernel.capabilities import effective
from ackward.kernel.machine import Machine
from ackward.model.doctor import Outcome

MOUNTS = Path("/proc/self/mountinfo")
STATUS = Path("/proc/self/status")
USERS = Path("/proc/self/uid_map")
KPROBES = Path("/sys/bus/event_source/devices/kprobe/type")

#: Capabilities that CAP_SYS_ADMIN includes: kernels had no finer ones before.
_IN_SYS_ADMIN = {"CAP_BPF", "CAP_PERFMON"}
ENOTSUPP = 524  # include/linux/errno.h: the kernel's own, unknown to libc

_LACKING = {
    *(errno.EINVAL, errno.E2BIG, errno.ENOENT, errno.ENOSYS, errno.ENOPROTOOPT, errno.EPROTONOSUPPORT),
    *(errno.EOPNOTSUPP, ENOTSUPP),
}

Answer = tuple[Outcome, str]
Question = Callable[[Machine], Answer]


def mounts(mountinfo: str, kind: str) -> list[Path]:
    """Where a kind of file system is mounted, whole mounts before parts of one (man 5 proc_pid_mountinfo)."""
    found = []
    for line in mountinfo.splitlines():
        mount, _, system = line.partition(" - ")
        fields = mount.split(" ")
        if system.split(" ")[0] == kind and len(fields) > 4:
            place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            found.append((fields[3] != "/", Path(place)))
    return [place for _, place in sorted(found, key=lambda entry: entry[0])]


def capabilities(machine: Machine) -> frozenset[str]:
    """The effective capabilities that count for the whole host."""
    held = effective(machine.read(STATUS))
    if "CAP_SYS_ADMIN" in held:
        held |= _IN_SYS_ADMIN
    # bpf(2) asks the first user namespace, where the capabilities of a rootless container mean nothing.
    return frozenset(held - _IN_SYS_ADMIN if in_user_namespace(machine) else held)


def in_user_namespace(machine: Machine) -> bool:
    """Whether this process lives in a user namespace other than the host's (man 7 user_namespaces)."""
    try:
        return machine.read(USERS).split() != ["0", "0", "4294967295"]
    except FileNotFoundError:
        return False  # a kernel without user namespaces


def judge(number: int, *, lacking: Sequence[str] = ()) -> Answer:
    """What an errno says. ``lacking``: the needed capabilities that this process does not have."""
    if number == 0:
        return Outcome.YES, ""
    words = "the kernel knows it not (ENOTSUPP)" if number == ENOTSUPP else os.strerror(number)
    if number in (errno.EPERM, errno.EACCES):
        if lacking:
            return Outcome.UNSURE, f"cannot be tried without {' and '.join(lacking)}"
        return Outcome.NO, f"refused although all capabilities are there ({words})"
    return (Outcome.NO if number in _LACKING else Outcome.UNSURE), words


def _lacking(machine: Machine, *needed: str) -> list[str]:
    held = capabilities(machine)
    return [name for name in needed if name not in held]


def root(machine: Machine) -> Answer:
    """Root of the host, not of a user namespace."""
    if machine.user() != 0:
        return Outcome.NO, f"user id {machine.user()}"
    if in_user_namespace(machine):
        return Outcome.NO, "root only inside a user namespace (a rootless container)"
    return Outcome.YES, ""


def capability(name: str) -> Question:
    """Whether a capability is held, and held where it counts."""

    def ask(machine: Machine) -> Answer:
        if name in capabilities(machine):
            return Outcome.YES, ""
        if name in _IN_SYS_ADMIN and in_user_namespace(machine):
            return Outcome.NO, "capabilities of a user namespace do not count for BPF"
        return Outcome.NO, "not in CapEff of /proc/self/status"

    return ask


def mounted(kind: str, place: str) -> Question:
    """Whether a kind of file system is mounted; ``place`` is where it usually is."""

    def ask(machine: Machine) -> Answer:
        places = mounts(machine.read(MOUNTS), kind)
        if places:
            return Outcome.YES, str(places[0])
        return Outcome.NO, f"not mounted; `mount -t {kind} none {place}` would"

    return ask


def kernel_types(machine: Machine) -> Answer:
    """Whether the kernel tells the types of its structs (BTF)."""
    try:
        machine.btf()
    except Unavailable as error:
        return Outcome.NO, error.missing
    return Outcome.YES, ""


def field(struct: str, path: str) -> Question:
    """Whether a struct of the kernel has a field."""

    def ask(machine: Machine) -> Answer:
        if machine.btf().field(struct, path) is None:
            return Outcome.NO, f"struct {struct} has no such field"
        return Outcome.YES, f"in struct {struct}"

    return ask


def libbpf_found(machine: Machine) -> Answer:
    """Whether a libbpf can be loaded, and which."""
    try:
        return Outcome.YES, machine.libbpf()
    except Unavailable as error:
        return Outcome.NO, error.missing


def program(kind: ProgramType, attach: AttachType, capability: str) -> Question:
    """Whether the kernel loads a program of a kind; ``capability`` is what it asks for beside CAP_BPF."""

    def ask(machine: Machine) -> Answer:
        number = machine.load_program(kind, attach, 0)
        # Without the number of a struct to implement, a kernel that knows struct_ops answers with this errno.
        if kind is ProgramType.STRUCT_OPS and number == ENOTSUPP:
            return Outcome.YES, ""
        return judge(number, lacking=_lacking(machine, "CAP_BPF", capability))

    return ask


def fentry(machine: Machine) -> Answer:
    """Whether programs may be put at the entry of a kernel function."""
    function = machine.btf().function_id("tcp_v4_rcv")
    if function is None:
        return Outcome.UNSURE, "BTF has no function to try it on"
    number = machine.load_program(ProgramType.TRACING, AttachType.TRACE_FENTRY, function)
    return judge(number, lacking=_lacking(machine, "CAP_BPF", "CAP_PERFMON"))


def kprobes(machine: Machine) -> Answer:
    """Whether the kernel has kprobes."""
    # Their program type also serves uprobes, so loading one says nothing. This is where kprobes register.
    try:
        machine.read(KPROBES)
    except FileNotFoundError:
        return Outcome.NO, "this kernel was built without kprobes"
    return Outcome.YES, ""


def tracepoint(name: str) -> Question:
    """Whether a raw tracepoint exists and takes a program."""

    def ask(machine: Machine) -> Answer:
        return judge(machine.attach_raw_tracepoint(name), lacking=_lacking(machine, "CAP_BPF", "CAP_PERFMON"))

    return ask


def bpf_map(kind: MapType, key: int, value: int, entries: int, flags: int = 0) -> Question:
    """Whether the kernel makes a map; sizes in bytes."""

    def ask(machine: Machine) -> Answer:
        return judge(
            machine.create_map(kind, key, value, entries, flags), lacking=_lacking(machine, "CAP_BPF")
        )

    return ask


def tcp_option(number: int, value: int) -> Question:
    """Whether a TCP socket takes an option."""
    return lambda machine: judge(machine.socket_option(number, value))


def inside_namespace(command: str, *, syntax_error: int) -> Question:
    """Whether a command works in a new namespace. It exits with ``syntax_error`` on words unknown to it."""
    words = command.split()

    def ask(machine: Machine) -> Answer:
        code, complaint = machine.inside(words)
        if code == 0:
            return Outcome.YES, ""
        if code == syntax_error:
            return Outcome.UNSURE, f"this `{words[0]}` cannot ask: {complaint}"
        return Outcome.NO, complaint

    return ask
