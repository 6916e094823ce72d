"""Where words go: data to stdout, talk to stderr, colour only on a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

from ackward.errors import OutputFailed


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the entry point: a reader that went away is no failure of ours."""
        raise BrokenPipeError


#: Data: what a pipe or a file should get.
data = _Console(soft_wrap=False, highlight=False)
#: Talk: progress, warnings, next steps.
talk = _Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(text: str) -> None:
    """Print a JSON document on stdout, verbatim."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def writable(path: Path | None) -> Path | None:
    """The path as it is, if a file can be made there: asked before the work whose result it shall hold.

    Raises :class:`OutputFailed`, and :class:`Refused` where a capture stands.
    """
    if path is None:
        return None
    from ackward.loop.whole_files import spare_capture  # most commands write none

    try:
        reason = _why_not(path)
        if not reason:
            spare_capture(path)
    except OSError as error:  # a link in /tmp that is somebody else's (fs.protected_symlinks)
        reason = error.strerror or str(error)
    if reason:
        raise OutputFailed(
            f"{path} cannot be written ({reason})",
            consequence="nothing was done",
            next_step="choose another path",
        )
    return path


def _why_not(path: Path) -> str:
    if path.is_dir():
        return "it is a directory"
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    return "" if os.access(path if _is_special(path) else path.parent, os.W_OK) else "Permission denied"


def writable_directory(path: Path | None) -> Path | None:
    """The path as it is, if files can be made in such a directory, which need not be there yet.

    Raises :class:`OutputFailed`.
    """
    if path is None:
        return None
    try:
        there = next(place for place in (path, *path.absolute().parents) if place.exists())
        reason = "" if os.access(there, os.W_OK | os.X_OK) else "Permission denied"
        if not there.is_dir():
            reason = f"{there} is no directory"
        os.fspath(path).encode()
    except UnicodeEncodeError:  # Polars takes no such name
        reason = "its name is not UTF-8"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise OutputFailed(
            f"nothing can be written into {path} ({reason})",
            consequence="nothing was done",
            next_step="choose another directory",
        )
    return path


def write_file(path: Path, text: str) -> None:
    """Write a whole file or none: a full disk leaves what was there before. Raises :class:`OutputFailed`."""
    from ackward.loop.whole_files import whole_file  # most commands write none

    try:
        if _is_special(path):
            path.write_text(text, encoding="utf-8")
            return
        with whole_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise OutputFailed(
            f"{path} could not be written ({error.strerror})",
            consequence="what was there before is untouched",
            next_step="choose another path or free some space",
        ) from error


def _is_special(path: Path) -> bool:
    """A device or a pipe: renaming a file onto it would take it away from everybody (/dev/null)."""
    return path.exists() and not path.is_file() and not path.is_dir()
