"""What the self-test found, kept for this boot: written by `ackward doctor --self-test`, consulted by plans."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from pydantic import ValidationError

from ackward.errors import PrivilegeMissing, Unavailable
from ackward.kernel import directories
from ackward.model.bypass import Capabilities
from ackward.remedies import receipts
from ackward.remedies.bypass.engine import PROGRAM


def path() -> Path:
    """Beside the receipts, but none of them."""
    return receipts.DIRECTORY / "capabilities" / "bypass.json"


def build() -> str:
    """SHA-256 of the program that joins connections: another program has to be tried again."""
    try:
        return hashlib.sha256(PROGRAM.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise Unavailable(
            f"the compiled program {PROGRAM.name} is missing from this installation",
            consequence="connections cannot be joined; nothing was changed",
            next_step="run `make` in the source tree, or install a wheel",
        ) from error


def load() -> Capabilities | None:
    """What was found; none if nothing was tried with this kernel, since this boot, with this program."""
    try:
        found = Capabilities.model_validate_json(path().read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    except PermissionError as error:
        raise PrivilegeMissing.for_this_command(
            f"{path()} may not be read", consequence="nothing was changed"
        ) from error
    current = (platform.release(), receipts.boot_id(), build())
    return found if (found.kernel, found.boot_id, found.engine) == current else None


def store(found: Capabilities) -> None:
    """Keep it, whole or not at all. Raises :class:`Unavailable`."""
    place = path()
    try:
        partial = place.with_suffix(f".{os.getpid()}.partial")
        directories.inside(place.parent, lambda: partial.write_text(found.to_json(), encoding="utf-8"))
        partial.replace(place)
    except OSError as error:
        raise Unavailable(
            f"what the self-test found cannot be kept in {place} ({error.strerror})",
            consequence="`ackward fix bypass` will ask for it again",
            next_step=f"make {place.parent} a writable directory",
        ) from error
