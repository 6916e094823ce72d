"""Files that people ask for: there whole or not at all, and made by nobody but us.

The directory may be /tmp, where anybody makes files and links. So what is not whole yet has a name that nobody can
guess, and is refused a place that is taken (``O_EXCL``): nothing is written through somebody else's link or file.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when all is in it; a link stays, and what it leads to is replaced.

    Raises OSError, and what was there before is untouched then.
    """
    path = path.resolve()
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
