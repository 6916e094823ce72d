"""The cgroup of a pod, by its uid: the kubelet makes it before it asks the runtime for the sandbox.

A hook on it sees the pod's own connections. On the root of the hierarchy each connection of the node would run the
hooks of all pods, and the kernel allows 64 (BPF_CGROUP_MAX_PROGS).
"""

from __future__ import annotations

import re

from ackward.errors import Unavailable
from ackward.kernel.probes import cgroup2_mount

_UID = re.compile(r"[0-9A-Za-z\-]{1,64}\Z")
# kubelet's pkg/kubelet/cm: cgroup_manager_linux.go (ToSystemd, ToCgroupfs).
_SYSTEMD = (
    "kubepods.slice/kubepods-pod{}.slice",
    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
    "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{}.slice",
)
_CGROUPFS = ("kubepods/pod{}", "kubepods/burstable/pod{}", "kubepods/besteffort/pod{}")


def cgroup_of(uid: str) -> str | None:
    """Its path in the v2 hierarchy as /proc/PID/cgroup has it; none where there is no such cgroup, or no hierarchy."""
    if not _UID.match(uid):
        return None
    try:
        root = cgroup2_mount()
    except Unavailable:
        return None  # whoever wants to attach a hook to it says so
    names = [name.format(uid.replace("-", "_")) for name in _SYSTEMD] + [
        name.format(uid) for name in _CGROUPFS
    ]
    return next((f"/{name}" for name in names if (root / name).is_dir()), None)
