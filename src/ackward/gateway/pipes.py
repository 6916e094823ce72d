"""Pipes to carry bytes from socket to socket inside the kernel, used again and again.

Law: a pipe that bytes were put into goes back only if the kernel says that it is empty (FIONREAD): what is left in it
would reach another customer. A relay holds one only while bytes are in it, so that a busy worker needs few and an idle
connection none.
"""

from __future__ import annotations

import fcntl
import os
import termios
from contextlib import suppress
from typing import Final

#: Idle pipes that are kept; each costs two descriptors and its ring.
_KEPT = 64
_EMPTY: Final = bytes(4)


class Pipe:
    """One pipe; ``held`` bytes are in it by our own account, ``used``: some were since it was last proved empty."""

    __slots__ = ("held", "into", "out", "used")

    def __init__(self, size: int) -> None:
        self.out, self.into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        self.used = False
        # Beyond /proc/sys/fs/pipe-user-pages-soft the default size carries as well, in smaller steps.
        with suppress(PermissionError):
            fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, size)

    def close(self) -> None:
        """Close both ends, and lose what is in it."""
        os.close(self.out)
        os.close(self.into)

    @property
    def is_empty(self) -> bool:
        """What the kernel says."""
        return fcntl.ioctl(self.out, termios.FIONREAD, _EMPTY) == _EMPTY


class Pipes:
    """The pool of one worker. ``open`` counts all pipes that exist, ``refused`` those that came back with bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle: list[Pipe] = []
        self.open = 0
        self.refused = 0

    def take(self) -> Pipe:
        """An empty pipe. Raises OSError when there are no descriptors left."""
        if self._idle:
            return self._idle.pop()
        made = Pipe(self._size)
        self.open += 1
        return made

    def give_back(self, pipe: Pipe) -> None:
        """Keep the pipe for the next one if it is empty, else lose it and what is in it."""
        empty = not pipe.used or pipe.is_empty
        if empty and len(self._idle) < _KEPT:
            pipe.used = False
            self._idle.append(pipe)
            return
        self.refused += not empty
        self.open -= 1
        pipe.close()

    def close(self) -> None:
        """Close those that are idle."""
        for pipe in self._idle:
            pipe.close()
        self.open -= len(self._idle)
        self._idle.clear()
