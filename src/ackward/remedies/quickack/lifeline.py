"""What a follower lives for: its receipt, and a namespace that somebody but followers still uses.

A socket inside a namespace keeps the namespace alive, so a follower must let go by itself: when the name is
deleted (inotify on its directory) or the last process has left (its pidfd). Nothing here polls on a clock.
Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.errors import Unavailable
from ackward.kernel.namespaces import NAMED, Namespace

#: How a follower is told from other processes: its own module, in its command line.
MODULE = "ackward.remedies.quickack.mirror"

_IN_MOVED_FROM, _IN_DELETE = 0x40, 0x200  # include/uapi/linux/inotify.h


class Lifeline:
    """Readable (for poll) when :meth:`holds` should be asked again."""

    def __init__(self, namespace: Namespace, receipt: Path) -> None:
        self._inode = namespace.inode
        self._receipt = receipt
        self._epoll = select.epoll()
        self._inotify = -1
        self._process = -1
        self._names = [namespace.path] if not namespace.path.is_relative_to("/proc") else []
        try:
            self._inotify = _inotify({path.parent for path in (receipt, *self._all_names())})
            self._epoll.register(self._inotify, select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all descriptors."""
        self._epoll.close()
        for descriptor in (self._inotify, self._process):
            if descriptor >= 0:
                os.close(descriptor)
        self._inotify = self._process = -1

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._epoll.fileno()

    def holds(self) -> bool:
        """Whether the receipt is there and the namespace is named or has a process that is no follower."""
        _drain(self._inotify)
        if not self._receipt.exists():
            return False
        return any(_is(path, self._inode) for path in self._all_names()) or self._has_process()

    def _all_names(self) -> Iterator[Path]:
        yield from self._names
        if NAMED.is_dir():
            yield from NAMED.iterdir()

    def _has_process(self) -> bool:
        if self._process >= 0:
            if not select.select([self._process], [], [], 0)[0]:
                return True
            self._epoll.unregister(self._process)
            os.close(self._process)
            self._process = -1
        for process in Path("/proc").iterdir():
            if (
                not process.name.isdigit()
                or not _is(process / "ns/net", self._inode)
                or _is_follower(process)
            ):
                continue
            try:
                self._process = os.pidfd_open(int(process.name))
            except ProcessLookupError:
                continue
            self._epoll.register(self._process, select.EPOLLIN)
            return True
        return False


def _is(path: Path, inode: int) -> bool:
    try:
        return path.stat().st_ino == inode
    except OSError:
        return False  # gone, or a kernel thread's


def _is_follower(process: Path) -> bool:
    try:
        return MODULE.encode() in (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def _inotify(directories: set[Path]) -> int:
    """A descriptor that becomes readable when something leaves one of the directories (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise _no_inotify()
    for directory in directories:
        if libc.inotify_add_watch(descriptor, os.fsencode(directory), _IN_DELETE | _IN_MOVED_FROM) < 0:
            error = _no_inotify()
            os.close(descriptor)
            raise error
    return descriptor


def _no_inotify() -> Unavailable:
    number = ctypes.get_errno()
    return Unavailable(
        f"directories cannot be watched (inotify: {os.strerror(number)})",
        consequence="a mirrored table would not know when to end",
        next_step="raise fs.inotify.max_user_instances or use the route scope (without --port)",
    )


def _drain(inotify: int) -> None:
    while True:
        try:
            os.read(inotify, 1 << 16)
        except BlockingIOError:
            return
