"""What a follower lives for: its receipt, and a namespace that somebody but followers still uses.

A socket inside a namespace keeps the namespace alive, so a follower must let go by itself: when the name is
deleted (inotify on its directory) or the last process has left (its pidfd). Nothing here polls on a clock.
Standard library only.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.errors import Unavailable
from ackward.kernel.inotify import DEPARTURES, Watch
from ackward.kernel.namespaces import NAMED, Namespace

#: How a follower is told from other processes: its own module, in its command line.
MODULE = "ackward.remedies.detour.mirror"


class Lifeline:
    """Readable (for poll) when :meth:`holds` should be asked again."""

    def __init__(self, namespace: Namespace, receipt: Path) -> None:
        self._inode = namespace.inode
        self._receipt = receipt
        self._process = -1
        self._names = [namespace.path] if not namespace.path.is_relative_to("/proc") else []
        with ExitStack() as opened:
            self._epoll = opened.enter_context(select.epoll())
            self._departures = opened.enter_context(
                _departures({path.parent for path in (receipt, *self._all_names())})
            )
            self._epoll.register(self._departures, select.EPOLLIN)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all descriptors."""
        self._opened.close()
        if self._process >= 0:
            os.close(self._process)
            self._process = -1

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._epoll.fileno()

    def holds(self) -> bool:
        """Whether the receipt is there and the namespace is named or has a process that is no follower."""
        self._departures.drain()
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


def _departures(directories: set[Path]) -> Watch:
    """Readable when something leaves one of the directories."""
    try:
        watch = Watch(DEPARTURES)
    except OSError as error:
        raise _unwatched(error.strerror) from error
    with ExitStack() as opened:
        opened.callback(watch.close)
        for directory in directories:
            try:
                there = watch.add(directory)
            except OSError as error:
                raise _unwatched(error.strerror) from error
            if not there:
                raise _unwatched(f"{directory} is not there")
        opened.pop_all()
    return watch


def _unwatched(why: str | None) -> Unavailable:
    return Unavailable(
        f"directories cannot be watched (inotify: {why})",
        consequence="a mirrored table would not know when to end",
        next_step="raise fs.inotify.max_user_instances or use the route scope (without --port)",
    )
