"""The file that tells pods which wait for it that new pods get quickack: there exactly while that is so.

The Quickack CNI plugin's own marker was touched when the list changed and never taken away; after a reboot /run is
empty, the list is not, and pods waited for ever. Here it is made and removed by what is so, and looked after.

An agent that is killed cannot remove it. So a shell of 1 MB waits at the end of a pipe that the agent holds, and
removes it when the kernel closes the pipe, however the agent ended. (In a container the agent must not be the first
process, or the kernel kills the shell along with it: ``shareProcessNamespace`` in the manifest.)
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.errors import Unavailable
from ackward.node.replacing import install, unwritable

_TEXT = b"New pods on this node get quickack if they ask for it. Kept by `ackward node agent`.\n"
# `read` ends with the pipe. Signals to the group or the session are not for it.
_WATCHMAN = 'trap "" HUP INT TERM; read -r _; rm -f -- "$1"'
_ENDS_WITHIN = 2.0


class Marker:
    """The marker of one agent; removed when this is left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._watchman: subprocess.Popen[bytes] | None = None
        remove(path)  # whatever an agent before us said: what is so is not known yet

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watchman is None:
            remove(self.path)
            return
        assert self._watchman.stdin is not None
        self._watchman.stdin.close()  # it removes the marker
        try:
            self._watchman.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._watchman.kill()
            self._watchman.wait()
        remove(self.path)

    def say(self, *, so: bool) -> None:
        """Let the marker be there or not. Raises :class:`Unavailable` if it cannot be made."""
        if not so:
            remove(self.path)
            return
        if self._watchman is None or self._watchman.poll() is not None:
            remove(self.path)  # nobody would take it away if we were killed now
            self._watchman = self._start()
        if self.path.is_dir():
            raise Unavailable(
                f"the marker {self.path} is a directory (a hostPath mount without a type made it)",
                consequence="pods that wait for the marker wait on",
                next_step=f"`rmdir {self.path}`, and give the mount `type: File`",
            )
        install(self.path, _TEXT, 0o644)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["/bin/sh", "-c", _WATCHMAN, "ackward-marker", str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            env={"PATH": os.defpath},
        )


def remove(path: Path) -> bool:
    """Take the marker away; false if there was none. A directory in its place is none."""
    try:
        path.unlink()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return False
    except OSError as error:
        raise unwritable(path, error) from error
    return True
