"""BPF maps and links that outlive the process that made them: pinned as files in the BPF file system.

A link stays attached as long as its pin is there, a map as long as its pin or a program that uses it. The file system
is in memory: a reboot clears it.
"""

from __future__ import annotations

import ctypes as c
import errno
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.errors import Unavailable
from ackward.kernel.bpf_syscall import AttachType
from ackward.kernel.libbpf import library
from ackward.kernel.machine import LINUX, Machine
from ackward.kernel.questions import MOUNTS, mounts

#: Where the BPF file system belongs (bpftool, systemd and libbpf agree), and our directory in it.
BPFFS = Path("/sys/fs/bpf")
OURS = BPFFS / "ackward"

#: struct bpf_link_info (include/uapi/linux/bpf.h): type, id, prog_id; for a cgroup its id, the hook.
_LINK_INFO = struct.Struct("=III4xQI")


def require_bpffs(machine: Machine = LINUX) -> None:
    """Raise :class:`Unavailable` unless the BPF file system is mounted where it belongs; nothing is mounted here."""
    if BPFFS not in mounts(machine.read(MOUNTS), "bpf"):
        raise Unavailable(
            f"no BPF file system is mounted at {BPFFS}",
            consequence="a hook would not outlive this command; nothing was changed",
            next_step=f"mount -t bpf bpf {BPFFS}",
        )


def _checked(outcome: int, doing: str) -> int:
    if outcome < 0:
        # libbpf 1.0 and newer return -errno; errno holds it for older calls too.
        number = c.get_errno() or -outcome
        raise OSError(number, os.strerror(number), doing)
    return outcome


class Pinnable:
    """A descriptor of a BPF object; closing lets go of the descriptor, not of what is pinned."""

    def __init__(self, descriptor: int) -> None:
        self.fd = descriptor

    @classmethod
    def at(cls, path: Path) -> Self:
        """The object pinned at ``path``. Raises FileNotFoundError."""
        return cls(_checked(library().bpf_obj_get(str(path).encode()), str(path)))

    def pin(self, path: Path) -> None:
        """Pin it at ``path``, which must not be there."""
        _checked(library().bpf_obj_pin(self.fd, str(path).encode()), str(path))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Table(Pinnable):
    """A map. The key of a socket storage is the number of a descriptor of the socket."""

    def get(self, key: int, size: int) -> bytes | None:
        """The value of ``size`` bytes at ``key``, or None."""
        value = c.create_string_buffer(size)
        if library().bpf_map_lookup_elem(self.fd, struct.pack("=i", key), value) != 0:
            if c.get_errno() == errno.ENOENT:
                return None
            raise OSError(c.get_errno(), os.strerror(c.get_errno()), "bpf map")
        return value.raw

    def put(self, key: int, value: bytes) -> None:
        """Set the value at ``key``."""
        _checked(library().bpf_map_update_elem(self.fd, struct.pack("=i", key), value, 0), "bpf map")

    def delete(self, key: int) -> None:
        """Remove the value at ``key``, if there is one."""
        outcome = library().bpf_map_delete_elem(self.fd, struct.pack("=i", key))
        if outcome < 0 and c.get_errno() != errno.ENOENT:
            _checked(outcome, "bpf map")


class CgroupLink(Pinnable):
    """A program attached to a cgroup, beside what others attached."""

    @classmethod
    def attach(cls, program: int, cgroup: Path, hook: AttachType, *, consequence: str) -> Self:
        """Attach the program of that descriptor to ``hook`` of ``cgroup``.

        Raises :class:`Unavailable` with the ``consequence``.
        """
        try:
            directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return cls(_checked(library().bpf_link_create(program, directory, hook, None), str(cgroup)))
            finally:
                os.close(directory)
        except OSError as error:
            raise Unavailable(
                f"no program can be attached to the cgroup {cgroup} ({error.strerror})",
                consequence=consequence,
                next_step=f"as root, see who holds it exclusively: `bpftool cgroup show {cgroup}`",
            ) from error

    @property
    def cgroup_id(self) -> int:
        """The cgroup that it is attached to; 0 if it was detached or the cgroup is gone."""
        info = c.create_string_buffer(_LINK_INFO.size)
        size = c.c_uint32(_LINK_INFO.size)
        _checked(library().bpf_obj_get_info_by_fd(self.fd, info, c.byref(size)), "bpf link")
        return int(_LINK_INFO.unpack(info.raw)[3])

    def detach(self) -> None:
        """Take the program off its hook now, whoever else holds the link."""
        _checked(library().bpf_link_detach(self.fd), "bpf link")


class NamespaceLink(Pinnable):
    """A program attached to the socket lookup of a network namespace (BPF_SK_LOOKUP)."""

    @classmethod
    def attach(cls, program: int, namespace: Path) -> Self:
        """Attach the program of that descriptor behind those that are attached there already."""
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            made = library().bpf_link_create(program, descriptor, AttachType.SK_LOOKUP, None)
            return cls(_checked(made, f"{namespace} (sk_lookup)"))
        finally:
            os.close(descriptor)
