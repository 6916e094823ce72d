"""Taking a cgroup away again."""

from __future__ import annotations

from pathlib import Path


def removed(cgroup: Path) -> bool:
    """Remove it if it can be; false while it is busy, as its last process or socket goes in a moment."""
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
