"""Directories of ours that several processes share: made by the first that needs one, gone with the last thing in it.

Law: between the making of a directory and the making of something in it another process may take the empty directory
away. So both are one act here, begun again when that happened.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

#: Each time another process must have left at that very moment.
_TRIES = 100

T = TypeVar("T")


def inside(directory: Path, make: Callable[[], T], *, mode: int = 0o700) -> T:
    """Make ``directory`` if it is not there, then something in it; gives what ``make`` gives. Raises OSError."""
    for _ in range(_TRIES):
        try:
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
            return make()
        except FileNotFoundError:
            continue
        except FileExistsError:
            # While another's was there; or it is no directory, or what is to be made is there already.
            if os.path.lexists(directory):
                raise
    directory.mkdir(mode=mode, parents=True, exist_ok=True)
    return make()


def leave(*directories: Path) -> None:
    """Remove those that are empty, innermost first: where something is left, a mount or no permission, they stay."""
    with suppress(OSError):
        for directory in directories:
            directory.rmdir()
