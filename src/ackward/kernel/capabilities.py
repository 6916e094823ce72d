"""The effective capabilities of a process, from the text of /proc/PID/status (man 5 proc_pid_status). Pure."""

from __future__ import annotations

import re

#: Those that are asked for here; include/uapi/linux/capability.h.
_BITS = {
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}


def effective(status: str) -> set[str]:
    """The names of those that are held, in the process's own user namespace."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    mask = int(match[1], 16) if match else 0
    return {name for name, bit in _BITS.items() if mask >> bit & 1}
