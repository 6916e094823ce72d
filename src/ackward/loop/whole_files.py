"""Files that people ask for: there whole or not at all, and made by nobody but us.

A capture is never replaced: it may be the only one there is, and an unquoted ``*.pcap`` is soon written.

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

from ackward.capture.sources import LONGEST_MAGIC
from ackward.errors import Refused
from ackward.model.names import visible


def spare_capture(path: Path) -> None:
    """Raises :class:`Refused` if a file that is to be written would replace a capture, or what may be one."""
    from ackward.capture.framing import begins_like_capture  # most files that are asked for are new

    if not path.is_file():
        return
    with path.open("rb") as file:
        if not begins_like_capture(file.read(LONGEST_MAGIC)):
            return
    raise Refused(
        f"{visible(str(path))} begins like a capture",
        consequence="nothing was done; a capture is never replaced",
        next_step="choose another name, or remove that file first",
    )


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
