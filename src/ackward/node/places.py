"""Where things are on a node. All paths are as this process sees them; the runtime must see the same ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ackward.errors import Refused
from ackward.node.conflist import TYPE
from ackward.node.pods import NODE

#: Beside the socket: who holds this lock is the agent, and what the socket is called until it answers.
LOCK, NEW = ".lock", ".new"
_WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True)
class Places:
    """The directories of the runtime's CNI configuration and binaries, what is ours in /run, and the marker."""

    configuration: Path = Path("/etc/cni/net.d")
    binaries: Path = Path("/opt/cni/bin")
    run: Path = NODE
    marker: Path = Path("/var/run/quickack-enabled")

    @property
    def binary(self) -> Path:
        """The stub that the runtime starts."""
        return self.binaries / TYPE

    @property
    def socket(self) -> Path:
        """Where the agent answers the stub."""
        return self.run / "agent.sock"

    @property
    def missed(self) -> Path:
        """What stubs left while nobody answered."""
        return self.run / "missed"

    @property
    def attachments(self) -> Path:
        """What was done to pods."""
        return self.run / "attachments"

    @property
    def ours(self) -> tuple[Path, ...]:
        """All that we ever make in ``run``, which may be a directory of others."""
        beside = (self.socket.with_suffix(suffix) for suffix in (LOCK, NEW))
        return (self.socket, *beside, self.missed, self.attachments)


def make_run(directory: Path) -> None:
    """Make the directory of what is ours in /run, for us alone; one that is there stays as it is.

    Raises OSError, and :class:`Refused` where another user could put a socket in the place of ours.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = directory.stat()
    if there.st_uid != os.geteuid() or there.st_mode & _WRITABLE_BY_OTHERS:
        raise Refused(
            f"others may write in {directory} (owner {there.st_uid}, mode {there.st_mode & 0o7777:o})",
            consequence="they could answer in the agent's place, so it is not used",
            next_step="name a directory that is not there yet, or make it yours alone (chmod 700)",
        )
