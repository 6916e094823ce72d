"""Remedies as lines of a table: plain text that lines up, whatever the width. The last column is the widest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ackward.model import names, units
from ackward.model.plan import Persistent, Status

_HEADER = ("Receipt", "State", "Since (UTC)", "Lease left", "At boot", "Remedy")
_GAP = "  "


def lines(found: Sequence[Status], waiting: Sequence[Persistent]) -> Iterator[str]:
    """The table, its header first; nothing for nothing. ``waiting`` are not in force now."""
    rows = [_row(one) for one in found] + [_waiting(one) for one in waiting]
    if not rows:
        return
    widths = [max(map(len, cells)) for cells in zip(_HEADER, *rows, strict=True)]
    for row in (_HEADER, *rows):
        yield _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(one: Status) -> tuple[str, ...]:
    receipt = one.receipt
    return (
        receipt.id,
        one.state.value,
        receipt.created[:19].replace("T", " "),
        _lease(one),
        "again" if one.persisted else "-",
        names.visible(f"{receipt.remedy} for {receipt.scope.words} in namespace {receipt.namespace.name}"),
    )


def _lease(one: Status) -> str:
    if one.lease_left_ns is None:
        return "-"
    left = units.duration(one.lease_left_ns) if one.lease_left_ns > 0 else "over"
    return left if one.lease_held else f"{left}, not held"


def _waiting(one: Persistent) -> tuple[str, ...]:
    return one.id, "persisted, not in force", "-", "-", "again", names.visible(" ".join(one.request))
