"""Word from the kernel that something happened in a directory (inotify(7)), and the exchange of two names.

Both by ctypes: Python has neither. What happened is not told on: a look at the directory says it better, and an
overflow of the queue then loses nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

# include/uapi/linux/inotify.h
_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE = 0x8, 0x40, 0x80, 0x100
_DELETE, _DELETE_SELF, _MOVE_SELF, _ATTRIB = 0x200, 0x400, 0x800, 0x4
_ONLYDIR = 0x01000000
#: All that can change what a reader finds, or take the directory itself away.
CHANGES = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ATTRIB
#: Something is not there any more.
DEPARTURES = _DELETE | _MOVED_FROM
_RECEIVE = 1 << 16

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # include/uapi/linux/fs.h


class Watch:
    """A descriptor that becomes readable when something happens in one of the directories."""

    def __init__(self, events: int = CHANGES) -> None:
        self._events = events
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            raise _error()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Watch nothing any more."""
        os.close(self._descriptor)

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return int(self._descriptor)

    def add(self, directory: Path) -> bool:
        """Watch a directory, under the path as it leads now; again is no harm. False: there is none."""
        if (
            self._libc.inotify_add_watch(self._descriptor, os.fsencode(directory), self._events | _ONLYDIR)
            >= 0
        ):
            return True
        error = _error(directory)
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise error

    def drain(self) -> None:
        """Forget what was told until now."""
        while True:
            try:
                if not os.read(self._descriptor, _RECEIVE):
                    return
            except BlockingIOError:
                return


def exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step (renameat2(2)); false where the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    if libc.renameat2(*paths, _RENAME_EXCHANGE) == 0:
        return True
    error = _error(other)
    if error.errno in (errno.EINVAL, errno.ENOSYS):
        return False
    raise error


def _error(path: Path | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), *([str(path)] if path else []))
