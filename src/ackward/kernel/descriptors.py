"""Which processes hold which sockets, and options that only the holder of a descriptor can read.

A socket's options can be read through pidfd_getfd(2), a copy of its descriptor that is let go at once. Nothing is
changed by that, with one exception that is kept clear of: a copy takes on the net_cls and net_prio class of the process
that makes it (__receive_sock()), so sockets of another class are left alone.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ackward.kernel.machine import PIDFD_GETFD

_TCP_NODELAY, _TCP_CORK = 1, 3  # include/uapi/linux/tcp.h
_CLASSES = ("net_cls", "net_prio")
_ENDED = (errno.ENOENT, errno.ESRCH)
#: Refused by ptrace's rules, or a kernel without the call (pidfd_open is of 5.3, pidfd_getfd of 5.6).
_DENIED = (errno.EPERM, errno.EACCES, errno.ENOSYS)


class Holder(NamedTuple):
    """A process and the number that a socket has in it."""

    pid: int
    command: str
    descriptor: int


@dataclass
class Holders:
    """The holders of each socket by its inode, lowest PID first; ``hidden`` counts processes that may not be read."""

    of: dict[int, list[Holder]] = field(default_factory=dict)
    hidden: int = 0


def holders() -> Holders:
    """Look through the descriptors of every process once. Socket inodes are unique on the host, not per namespace."""
    found = Holders()
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):  # noqa: PTH208 - strings suffice
        try:
            _read_process(pid, found)
        except PermissionError:
            found.hidden += 1
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended
    return found


def _read_process(pid: int, found: Holders) -> None:
    place = f"/proc/{pid}/fd"
    command: str | None = None
    for name in os.listdir(place):  # noqa: PTH208 - ten thousand strings, no objects
        try:
            target = os.readlink(f"{place}/{name}")  # noqa: PTH115
        except FileNotFoundError:
            continue  # closed in between
        if not target.startswith("socket:["):
            continue
        if command is None:
            command = Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
        mine = found.of.setdefault(int(target[8:-1]), [])
        if not mine or mine[-1].pid != pid:  # a second descriptor of the same process adds nothing
            mine.append(Holder(pid, command, int(name)))


class SendOptions(NamedTuple):
    """What decides whether a small write waits: Nagle's algorithm is on without ``nodelay``."""

    nodelay: bool
    cork: bool


@dataclass
class Options:
    """Options by socket inode. ``denied``: sockets whose process may not be looked into; ``classed``: left alone."""

    of: dict[int, SendOptions] = field(default_factory=dict)
    denied: int = 0
    classed: int = 0


def send_options(sockets: Iterable[tuple[int, Holder]]) -> Options:
    """Read the options of (inode, holder) pairs. What has closed in between is left out."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for inode, holder in sockets:
        wanted.setdefault(holder.pid, []).append((inode, holder.descriptor))
    found = Options()
    mine = _network_classes("self")
    for pid, theirs in wanted.items():
        try:
            if _network_classes(str(pid)) != mine:
                found.classed += len(theirs)
                continue
            with _process(pid) as handle:
                for inode, descriptor in theirs:
                    if (options := _options(handle, descriptor, inode)) is not None:
                        found.of[inode] = options
        except OSError as error:
            if error.errno in _ENDED:
                continue
            if error.errno not in _DENIED:
                raise
            found.denied += len(theirs)
    return found


def _network_classes(process: str) -> list[str]:
    return network_classes(Path(f"/proc/{process}/cgroup").read_text(errors="replace"))


def network_classes(text: str) -> list[str]:
    """The lines of /proc/PID/cgroup that give a process's sockets a traffic class or priority (cgroup v1)."""
    return [line for line in text.splitlines() if any(name in line.split(":")[1] for name in _CLASSES)]


@contextmanager
def _process(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _options(handle: int, descriptor: int, inode: int) -> SendOptions | None:
    """None if that socket is gone. Raises OSError, ENOSYS before Linux 5.6."""
    copy = _libc().syscall(PIDFD_GETFD, handle, descriptor, 0)
    if copy < 0:
        number = ctypes.get_errno()
        if number == errno.EBADF:
            return None
        raise OSError(number, os.strerror(number))
    try:
        if os.fstat(copy).st_ino != inode:
            return None  # the number belongs to another file by now
        nodelay, cork = _flag(copy, _TCP_NODELAY), _flag(copy, _TCP_CORK)
    finally:
        os.close(copy)
    return None if nodelay is None or cork is None else SendOptions(nodelay, cork)


def _flag(descriptor: int, option: int) -> bool | None:
    value, size = ctypes.c_int(), ctypes.c_uint(4)
    outcome = _libc().getsockopt(
        descriptor, socket.IPPROTO_TCP, option, ctypes.byref(value), ctypes.byref(size)
    )
    return bool(value.value) if outcome == 0 else None
