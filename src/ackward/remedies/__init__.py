"""Remedies, each a package of one shape (:class:`ackward.remedies.transaction.Remedy`).

A remedy is loaded only when it is named: the node agent pays for what it uses, and so does the follower
process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ackward.errors import UnknownName

if TYPE_CHECKING:
    from ackward.remedies.transaction import Remedy

#: Each has a package here whose ``apply`` module holds ``REMEDY``.
NAMES = ("quickack", "nodelay", "initcwnd", "pin", "bypass", "gateway")


def load(name: str) -> Remedy:
    """The remedy of that name; raises :class:`UnknownName`."""
    if name not in NAMES:
        raise UnknownName(
            f"there is no remedy {name!r}",
            consequence="nothing was done",
            next_step=f"name one of: {', '.join(NAMES)}",
        )
    remedy: Remedy = importlib.import_module(f"ackward.remedies.{name}.apply").REMEDY
    return remedy
