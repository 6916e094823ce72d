"""Where words go: data to stdout, talk to stderr, colour only on a terminal."""

from __future__ import annotations

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


def write_file(path: Path, text: str) -> None:
    """Write a whole file or none: a full disk leaves what was there before."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputFailed(
            f"{path} could not be written ({error.strerror})",
            consequence="the report is lost; what was there before is untouched",
            next_step="choose another path or free some space",
        ) from error
