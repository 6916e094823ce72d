"""Plans, receipts and what became of them: what a remedy would change, what it changed, and how it is undone.

A receipt holds the fields that we set, never a snapshot of what was around them: undo removes objects that we
made and restores fields that we set, unless someone changed them since.
"""

from __future__ import annotations

import enum
from typing import Literal

from pydantic import Field

from ackward.errors import Refused
from ackward.model.changes import Change, Leased, Persisted
from ackward.model.report import Model
from ackward.model.scopes import Scope


class NamespaceIdentity(Model):
    """A network namespace: its inode identifies it while it lives, its cookie for the whole boot."""

    name: str
    path: str
    inode: int
    cookie: int | None = Field(default=None, description="SO_NETNS_COOKIE; null before Linux 5.14")


class Plan(Model):
    """What a remedy would change, in this order. No changes: it is so already, and ``notes`` say why."""

    remedy: str
    namespace: NamespaceIdentity
    scope: Scope
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    request: tuple[str, ...] = Field(
        default=(), description="the words after `ackward fix` that ask for this, but for the namespace"
    )


class Lasting(Model):
    """How long a remedy shall last. Neither: until it is undone, or the machine goes down."""

    lease_ns: int | None = Field(default=None, gt=0, description="it goes by itself when this time is up")
    persist: bool = Field(default=False, description="it is applied again at each boot")


class Refusal(Model):
    """Why there is no plan: carrying it out would harm something, or there is nothing to carry it out on."""

    reason: str
    consequence: str = "nothing was changed"
    next_step: str

    def as_error(self) -> Refused:
        """The refusal as the exception that a command raises."""
        return Refused(self.reason, consequence=self.consequence, next_step=self.next_step)


class ReceiptState(enum.StrEnum):
    """``APPLYING`` in a receipt at rest means that apply was killed on its way."""

    APPLYING = "applying"
    APPLIED = "applied"


class Receipt(Model):
    """What was changed and how to undo it. Written before the first change."""

    schema_: Literal["ackward/receipt/1"] = Field(default="ackward/receipt/1", alias="schema")
    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    remedy: str
    created: str = Field(description="ISO 8601, UTC")
    boot_id: str
    namespace: NamespaceIdentity
    scope: Scope
    changes: tuple[Change, ...]
    state: ReceiptState

    @property
    def lease(self) -> Leased | None:
        """When it goes by itself, if it does."""
        return next((change for change in self.changes if isinstance(change, Leased)), None)

    @property
    def persisted(self) -> Persisted | None:
        """What brings it back at boot, if anything does."""
        return next((change for change in self.changes if isinstance(change, Persisted)), None)


class State(enum.StrEnum):
    """What the kernel says about a receipt, or about one of its changes."""

    IN_FORCE = "in force"
    PARTLY = "partly in force"
    GONE = "gone"
    CHANGED = "changed by someone else"


class Look(Model):
    """One change, read back from the kernel."""

    state: State
    words: str


class Status(Model):
    """A receipt, read back from the kernel.

    ``lease_left_ns`` is null without a lease, and not positive when its time is up but nobody has ended it;
    ``lease_held`` says whether there is somebody who will.
    """

    receipt: Receipt
    state: State
    details: tuple[Look, ...]
    lease_left_ns: int | None = None
    lease_held: bool | None = None
    persisted: bool = False


class Persistent(Model):
    """A unit of ours that applies a request at each boot: a receipt carries its ``id`` while it is in force."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    request: tuple[str, ...] = Field(description="the words after `ackward fix`")
    unit: str = Field(description="its file")


class Ending(enum.StrEnum):
    """How the undo of one change ended. ``LEFT``: someone changed it since, so it was left as it is."""

    UNDONE = "undone"
    NOTHING = "nothing to undo"
    LEFT = "left as it is"
    FAILED = "failed"


class Undone(Model):
    """One change after its undo."""

    ending: Ending
    words: str


class UndoOutcome(Model):
    """A receipt after its undo. ``complete``: all objects of ours are gone and all fields restored."""

    receipt: str
    remedy: str
    details: tuple[Undone, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing was left and nothing failed."""
        return not any(part.ending in (Ending.LEFT, Ending.FAILED) for part in self.details)

    @property
    def failed(self) -> bool:
        """Whether something could not be undone, so that the receipt was kept."""
        return any(part.ending is Ending.FAILED for part in self.details)

    @property
    def words(self) -> str:
        """What became of each change, in words."""
        return "; ".join(part.words for part in self.details)

    @property
    def open_points(self) -> tuple[str, ...]:
        """What was left or failed, in words."""
        return tuple(part.words for part in self.details if part.ending in (Ending.LEFT, Ending.FAILED))
