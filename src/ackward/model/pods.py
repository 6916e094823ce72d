"""Pods as a container runtime knows them (Container Runtime Interface)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sandbox:
    """One attempt at a pod: what its containers share. ``endpoint`` is the runtime's socket; ``ready``: it runs.

    ``created_ns`` is wall-clock time in nanoseconds since 1970.
    """

    id: str
    namespace: str
    name: str
    uid: str
    attempt: int
    ready: bool
    created_ns: int
    annotations: Mapping[str, str]
    endpoint: Path

    @property
    def pod(self) -> str:
        """The pod as kubectl and ``--pod`` name it."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Container:
    """One container. ``pid`` is None unless it runs.

    ``cgroup`` is its path below the v2 hierarchy, None where it has none of its own there.
    """

    id: str
    name: str
    pid: int | None
    cgroup: str | None


@dataclass(frozen=True)
class Pod:
    """A sandbox that runs, and where on this machine it is.

    ``netns`` leads to its network namespace; None is the node's own (hostNetwork). ``cgroup`` holds all containers,
    None as in :class:`Container`.
    """

    sandbox: Sandbox
    pid: int
    netns: Path | None
    cgroup: str | None
    containers: tuple[Container, ...]
