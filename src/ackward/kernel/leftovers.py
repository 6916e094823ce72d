"""What ends with its maker has the maker's PID in its name, so that others can tell what a killed one left behind."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

_NAME = re.compile(r"ackward-.+-(?P<maker>\d+)-\w{6,8}")
#: Where :func:`directory` makes them: /tmp, if not told otherwise, and where more room is wanted.
ROOMY = Path("/var/tmp")  # noqa: S108 - mkdtemp makes what is in it


def name(label: str) -> str:
    """A unique name for something that ends with this process."""
    return f"{_prefix(label)}{secrets.token_hex(3)}"


def _prefix(label: str) -> str:
    return f"ackward-{label}-{os.getpid()}-"


def is_left(name: str) -> bool:
    """Whether the name is one of these, and its maker was killed before it could take the thing away."""
    made = _NAME.fullmatch(name)
    return made is not None and not Path(f"/proc/{made['maker']}").exists()


def directory(label: str, parent: Path | None = None) -> AbstractContextManager[str]:
    """A temporary directory in ``parent`` (else where temporary files go), gone again at the end."""
    return tempfile.TemporaryDirectory(prefix=_prefix(label), dir=parent)


def remove_directories() -> list[Path]:
    """Take away what killed processes of this user left of :func:`directory`; gives what went."""
    gone = []
    for parent in {Path(tempfile.gettempdir()), ROOMY}:
        for entry in os.scandir(parent) if parent.is_dir() else ():
            if not is_left(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                shutil.rmtree(entry.path, ignore_errors=True)  # somebody else may be at it, too
                gone.append(Path(entry.path))
    return sorted(gone)
