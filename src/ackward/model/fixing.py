"""What ``ackward fix``, ``status`` and ``undo`` print with ``--json``; ``fix --prove``: :mod:`ackward.model.proof`."""

from __future__ import annotations

from ackward.model.plan import Persistent, Plan, Receipt, Status, UndoOutcome
from ackward.model.report import Model


class FixReport(Model):
    """A plan, and what was made of it: ``receipt`` is null for ``--dry-run`` and where there was nothing to do."""

    plan: Plan
    receipt: Receipt | None


class StatusReport(Model):
    """All that is on record: remedies read back from the kernel, requests that come back at boot, damaged files."""

    remedies: tuple[Status, ...]
    persisted: tuple[Persistent, ...]
    damaged: tuple[str, ...]


class UndoReport(Model):
    """What was taken back, what of ours had no receipt, where damaged receipts lie now, and what is left, in words."""

    undone: tuple[UndoOutcome, ...]
    swept: tuple[str, ...]
    set_aside: tuple[str, ...]
    open: tuple[str, ...]
