"""Where words go: data to stdout, talk to stderr, colour only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from ackward.errors import OutputFailed
from ackward.model.names import visible


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
    return _checked(path, _why_no_file)


def writable_directory(path: Path | None) -> Path | None:
    """The path as it is, if files can be made in such a directory, which need not be there yet.

    Raises :class:`OutputFailed`.
    """
    return _checked(path, _why_nothing_inside)


def _checked(path: Path | None, why_not: Callable[[Path], str]) -> Path | None:
    """The path, unless there is a reason against it. Raises :class:`OutputFailed`."""
    if path is None:
        return None
    try:
        reason = why_not(path)
    except OSError as error:  # a link in /tmp that is somebody else's (fs.protected_symlinks)
        reason = error.strerror or str(error)
    if reason:
        raise OutputFailed(
            visible(f"{path} cannot be written ({reason})"),
            consequence="nothing was done",
            next_step="choose another path",
        )
    return path


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "it is a directory"
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    if not os.access(path if _is_special(path) else path.parent, os.W_OK):
        return "Permission denied"
    from ackward.loop.whole_files import spare_capture  # most commands write none

    spare_capture(path)
    return ""


def _why_nothing_inside(path: Path) -> str:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:  # Polars takes no such name
        return "its name is not UTF-8"
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not there.is_dir():
        return f"{there} is no directory"
    return "" if os.access(there, os.W_OK | os.X_OK) else "Permission denied"


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
            visible(f"{path} could not be written ({error.strerror})"),
            consequence="what was there before is untouched",
            next_step="choose another path or free some space",
        ) from error


def _is_special(path: Path) -> bool:
    """A device or a pipe: renaming a file onto it would take it away from everybody (/dev/null)."""
    return path.exists() and not path.is_file() and not path.is_dir()
