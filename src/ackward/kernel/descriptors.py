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
from collections.abc import Callable, Iterable, Iterator
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


def holders(pids: Iterable[int] | None = None) -> Holders:
    """Look through the descriptors of these processes, or of all, once. Socket inodes are unique on the host."""
    found = Holders()
    if pids is None:
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - strings suffice
    for pid in pids:
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
class Unreached:
    """Sockets that were kept clear of. ``denied``: their process may not be looked into; ``classed``: left alone."""

    denied: int = 0
    classed: int = 0


@dataclass
class Options(Unreached):
    """Options by socket inode."""

    of: dict[int, SendOptions] = field(default_factory=dict)


def send_options(sockets: Iterable[tuple[int, Holder]]) -> Options:
    """Read the options of (inode, holder) pairs. What has closed in between is left out."""
    found: dict[int, SendOptions] = {}

    def visit(inode: int, copy: int) -> None:
        nodelay = read_option(copy, socket.IPPROTO_TCP, _TCP_NODELAY)
        cork = read_option(copy, socket.IPPROTO_TCP, _TCP_CORK)
        if nodelay is not None and cork is not None:
            found[inode] = SendOptions(bool(nodelay), bool(cork))

    unreached = reach(sockets, visit)
    return Options(unreached.denied, unreached.classed, found)


def reach(sockets: Iterable[tuple[int, Holder]], visit: Callable[[int, int], None]) -> Unreached:
    """Call ``visit(inode, descriptor)`` with a copy of each of these sockets, let go when it returns.

    Sockets that have closed in between are left out. Keep visits short: the owner's FIN waits for them. An OSError
    from ``visit`` would be taken for the process's.
    """
    wanted: dict[int, list[tuple[int, int]]] = {}
    for inode, holder in sockets:
        wanted.setdefault(holder.pid, []).append((inode, holder.descriptor))
    unreached = Unreached()
    mine = _network_classes("self")
    for pid, theirs in wanted.items():
        try:
            if _network_classes(str(pid)) != mine:
                unreached.classed += len(theirs)
                continue
            with _process(pid) as handle:
                for inode, descriptor in theirs:
                    _visit(handle, descriptor, inode, visit)
        except OSError as error:
            if error.errno in _ENDED:
                continue
            if error.errno not in _DENIED:
                raise
            unreached.denied += len(theirs)
    return unreached


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


def _visit(handle: int, descriptor: int, inode: int, visit: Callable[[int, int], None]) -> None:
    """Raises OSError, ENOSYS before Linux 5.6."""
    copy = _libc().syscall(PIDFD_GETFD, handle, descriptor, 0)
    if copy < 0:
        number = ctypes.get_errno()
        if number == errno.EBADF:
            return
        raise OSError(number, os.strerror(number))
    try:
        if os.fstat(copy).st_ino == inode:  # else the number belongs to another file by now
            visit(inode, copy)
    finally:
        os.close(copy)


def read_option(descriptor: int, level: int, option: int) -> int | None:
    """An integer option of a socket; None if the socket has no such option."""
    value, size = ctypes.c_uint(), ctypes.c_uint(4)
    outcome = _libc().getsockopt(descriptor, level, option, ctypes.byref(value), ctypes.byref(size))
    return value.value if outcome == 0 else None


def write_option(descriptor: int, level: int, option: int, value: int) -> int:
    """Set an integer option of a socket; gives the errno, 0 if it is set."""
    data = ctypes.c_uint(value)
    outcome = _libc().setsockopt(descriptor, level, option, ctypes.byref(data), 4)
    return ctypes.get_errno() if outcome < 0 else 0
