"""The network namespaces of pods that a node agent has on record: what it did there is its own to take back.

Its records say more than is read here (:mod:`ackward.node.pods` writes them).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from ackward.errors import PrivilegeMissing
from ackward.model.plan import NamespaceIdentity
from ackward.remedies.transaction import find

#: One directory for each interface of a pod's container, with its record and the receipts of its remedies.
ATTACHMENTS = Path("/run/ackward/node/attachments")
RECORD = "attachment"  # without .json: it lies among receipts and is none


class _Record(BaseModel):
    identity: NamespaceIdentity | None = None


def pods_on_record(directory: Path | None = None) -> tuple[NamespaceIdentity, ...]:
    """Those that live; raises :class:`PrivilegeMissing` where the records may not be read."""
    directory = directory or ATTACHMENTS
    try:
        found = [_identity(path / RECORD) for path in sorted(directory.iterdir())]
    except FileNotFoundError:
        return ()
    except PermissionError as error:
        raise PrivilegeMissing.for_this_command(
            f"{directory} may not be read",
            consequence="what the node agent did to pods cannot be told from leftovers; nothing was undone",
        ) from error
    return tuple(identity for identity in found if identity and find(identity))


def _identity(record: Path) -> NamespaceIdentity | None:
    try:
        return _Record.model_validate_json(record.read_bytes()).identity
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
