"""Where things are on a node. All paths are as this process sees them; the runtime must see the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ackward.node.conflist import TYPE
from ackward.node.pods import NODE


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
