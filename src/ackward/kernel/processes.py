"""Who a process or a cgroup is."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from pathlib import Path
from typing import Literal

from ackward.errors import Unavailable
from ackward.kernel.probes import cgroup2_mount

#: How container runtimes name their cgroups: cri-containerd-ID.scope, docker-ID.scope, libpod-ID, /kubepods/.../ID.
_CONTAINER = re.compile(r"(?:^|[-/])(?P<id>[0-9a-f]{64})(?:\.scope)?$")


@functools.cache
def _cgroup_paths() -> dict[int, str]:
    try:
        mount = cgroup2_mount()
    except Unavailable:
        return {}
    return {number: str(path.relative_to(mount)) for number, path in cgroups_below(mount).items()}


def cgroups_below(cgroup: Path) -> dict[int, Path]:
    """A directory of the v2 hierarchy and all below it, by their ids (inodes)."""
    found = {}
    for path, _, _ in os.walk(cgroup):
        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
            found[os.stat(path).st_ino] = Path(path)  # noqa: PTH116 - a walk gives strings
    return found


def cgroup_path(cgroup_id: int) -> str | None:
    """The path of a v2 cgroup below the hierarchy's mount point; its id is its inode. None if it is gone."""
    return _cgroup_paths().get(cgroup_id)


def cgroups_of_process(pid: int | Literal["self"]) -> str:
    """What /proc/PID/cgroup says, a line for each hierarchy; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def cgroup_of_process(pid: int | Literal["self"]) -> str | None:
    """The v2 cgroup that a process is in, as /proc/PID/cgroup has it: "/" is the root. None if it has ended."""
    lines = cgroups_of_process(pid).splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)


def container_of_cgroup(cgroup_id: int) -> str | None:
    """A short container id if the cgroup's name is one that a container runtime gives, else None."""
    found = _CONTAINER.search(cgroup_path(cgroup_id) or "")
    return found["id"][:12] if found else None
