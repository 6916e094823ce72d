"""ADDs that the stub could not bring to an agent: it left each as a file, and let the pod start without."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ackward.node.wire import Answer, Malformed, Request, unpack

#: A stub writes and renames within milliseconds: what is older than this was left by one that was killed.
_ABANDONED_S = 60


class Missed:
    """The directory beside the agent's socket; files that begin with a dot are being written.

    ``trouble`` is told of files that are no requests, and of requests that ``handler`` fails at: none is met twice.
    """

    def __init__(self, directory: Path, trouble: Callable[[str], None] = lambda _: None) -> None:
        self.directory, self._trouble = directory, trouble

    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._listed(partial=False))

    def replay(self, handler: Callable[[Request], Answer]) -> int:
        """Answer each, the oldest first, and take it away; how many."""
        for age, path in self._listed(partial=True):
            if time.time() - age > _ABANDONED_S:
                path.unlink(missing_ok=True)
        answered = 0
        for _, path in sorted(self._listed(partial=False)):
            try:
                request = unpack(path.read_bytes())
            except FileNotFoundError:
                continue  # its pod was deleted meanwhile
            except Malformed as error:
                self._trouble(f"{path} is no request and was removed: {error}")
            else:
                answered += self._answered(path, request, handler)
            path.unlink(missing_ok=True)
        return answered

    def _answered(self, path: Path, request: Request, handler: Callable[[Request], Answer]) -> bool:
        try:
            handler(request)
        except Exception as error:  # noqa: BLE001 - as at the socket: one request shall not end the agent, or the next one
            self._trouble(f"{path} could not be answered and was removed: {type(error).__name__}: {error}")
            return False
        return True

    def forget(self, container_id: str, ifname: str) -> None:
        """A DEL came: nobody shall make up for its ADD."""
        (self.directory / f"{container_id}.{ifname}").unlink(missing_ok=True)

    def _listed(self, *, partial: bool) -> list[tuple[float, Path]]:
        found = []
        try:
            entries = list(self.directory.iterdir())
        except FileNotFoundError:
            return []
        for path in entries:
            try:
                if path.name.startswith(".") is partial:
                    found.append((path.stat().st_mtime, path))
            except FileNotFoundError:
                continue  # withdrawn by a DEL, or renamed
        return found
