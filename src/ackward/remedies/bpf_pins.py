"""Pins in the BPF file system that belong to one receipt, and remedies that have some.

A pin is a file of the host: it outlives the namespace that it is for, and the process that made it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from ackward.kernel import directories
from ackward.kernel.bpffs import OURS
from ackward.kernel.namespaces import Namespace, in_sight
from ackward.model.plan import Receipt, UndoOutcome
from ackward.remedies import transaction
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Occasion


@dataclass(frozen=True)
class BpfPins(ABC):
    """The pins of one receipt in the namespace with the cookie ``netns``."""

    receipt: str
    netns: int

    @property
    def directory(self) -> Path:
        """Its pins. The cookie in the name tells to which namespace it belongs, however little of it is there."""
        return OURS / f"{self.receipt}@{self.netns}"

    @property
    def is_there(self) -> bool:
        """Whether anything of it is."""
        return self.directory.exists()

    def make_directory(self) -> None:
        """Make the place for its pins. Raises FileExistsError when it is there."""
        directories.inside(OURS, self.directory.mkdir, mode=0o755)

    def remove_directory(self) -> None:
        """Take the emptied place away, and ours with the last. Raises FileNotFoundError when it was not there."""
        self.directory.rmdir()
        directories.leave(OURS)

    @abstractmethod
    def remove(self) -> object:
        """Take it all away, also what is there in part."""

    @classmethod
    def all(cls, *remedies: str) -> list[Self]:
        """All that are pinned for these remedies, of every receipt and namespace."""
        try:
            names = sorted(entry.name for entry in OURS.iterdir())
        except FileNotFoundError:
            return []
        found = (name.rpartition("@") for name in names)
        return [
            cls(receipt, int(netns))
            for receipt, _, netns in found
            if receipt.startswith(tuple(f"{remedy}-" for remedy in remedies)) and netns.isdigit()
        ]


Pins = TypeVar("Pins", bound=BpfPins)


def ownerless(pins: Sequence[Pins], namespace: Namespace, directory: Path) -> Iterator[tuple[Pins, bool]]:
    """Those to be swept, and whether they are of ``namespace``: all of its own, and those whose namespace is gone.

    ``directory`` is that of the receipts: what has one in a namespace that is gone is left to its undo.
    """
    cookie = transaction.identify(namespace).cookie if pins else None
    alive = _cookies() if any(one.netns != cookie for one in pins) else set()
    for one in pins:
        has_receipt = (directory / f"{one.receipt}.json").exists()
        if one.netns == cookie or not (one.netns in alive or has_receipt):
            yield one, one.netns == cookie


def _cookies() -> set[int]:
    """The cookies of all namespaces in sight."""
    found = set()
    for namespace in in_sight():
        try:
            found.add(transaction.identify(namespace).cookie or 0)
        except OSError:
            continue  # it ended since it was listed
    return found


@dataclass(frozen=True)
class PinnedRemedy(transaction.Remedy):
    """A remedy that has pins for some scopes, or all. It outlives its namespace."""

    pins: Callable[[str, int], BpfPins]

    def undo_steps(
        self, receipt: Receipt, store: Receipts, occasion: Occasion = Occasion.ASKED
    ) -> Generator[str, None, UndoOutcome]:
        """As for all remedies; when the namespace is gone, with its sockets, the pins go too."""
        transaction.require_net_admin()
        pins = self.pins(receipt.id, receipt.namespace.cookie or 0)
        # Not every receipt of such a remedy has some, and libbpf may not be there then.
        if pins.is_there and transaction.find(receipt.namespace) is None:
            pins.remove()
        return (yield from super().undo_steps(receipt, store, occasion))
