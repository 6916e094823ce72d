"""The effects of a duration: the same three verbs as a remedy's own."""

from __future__ import annotations

from ackward.model.changes import Leased, Persisted
from ackward.model.plan import Look, Undone
from ackward.remedies.lasting import lease, persistence
from ackward.remedies.receipts import Receipts


def look(change: Leased | Persisted, store: Receipts) -> Look:
    """Read the change back."""
    return lease.look(change, store) if isinstance(change, Leased) else persistence.look(change)


def unmake(change: Leased | Persisted, store: Receipts) -> Undone:
    """Take the change back."""
    if isinstance(change, Leased):
        return lease.end(change, store)
    return persistence.unmake(change, store.systemd)
