"""Plans, receipts and what became of them: what a remedy would change, what it changed, and how it is undone.

A receipt holds the fields that we set, never a snapshot of what was around them: undo removes objects that we
made and restores fields that we set, unless someone changed them since.
"""

from __future__ import annotations

import enum
from typing import Annotated, Literal

from pydantic import Field

from ackward.errors import Refused
from ackward.model.report import Model

#: Marks our routes and rules in the kernel, so that they are recognisable with the receipt lost. RTPROT_* in
#: include/uapi/linux/rtnetlink.h and iproute2's rt_protos leave 172 unassigned.
OUR_PROTOCOL = 0xAC

Family = Literal[4, 6]


class NamespaceIdentity(Model):
    """A network namespace: its inode identifies it while it lives, its cookie for the whole boot."""

    name: str
    path: str
    inode: int
    cookie: int | None = Field(default=None, description="SO_NETNS_COOKIE; null before Linux 5.14")


class RouteScope(Model):
    """Routes of a namespace: its default routes, or those to ``to`` (a CIDR)."""

    kind: Literal["routes"] = "routes"
    to: str | None = None

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        return "all default routes" if self.to is None else f"routes to {self.to}"


class PortScope(Model):
    """TCP connections whose local or remote port is ``port``."""

    kind: Literal["port"] = "port"
    port: int = Field(ge=1, le=65535)

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        return f"TCP port {self.port}"


Scope = Annotated[RouteScope | PortScope, Field(discriminator="kind")]


class RouteName(Model):
    """What singles out a route in the kernel (the key of NLM_F_REPLACE), and ``via`` in words for display."""

    family: Family
    destination: str
    source: str | None = Field(default=None, description="IPv6 source-specific routes only")
    tos: int = 0
    table: int
    metric: int = 0
    via: str = ""

    @property
    def words(self) -> str:
        """The route as ``ip route`` would name it."""
        parts = [f"IPv{self.family} route {self.destination}"]
        if self.source:
            parts.append(f"from {self.source}")
        if self.via:
            parts.append(self.via)
        if self.metric:
            parts.append(f"metric {self.metric}")
        parts.append({254: "(table main)", 253: "(table default)"}.get(self.table, f"(table {self.table})"))
        return " ".join(parts)


class RouteQuickack(Model):
    """The metric RTAX_QUICKACK of one route that is not ours. 0 is how the kernel says absent."""

    kind: Literal["route-quickack"] = "route-quickack"
    route: RouteName
    before: int = 0
    after: int = 1

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"set quickack {self.after} on the {self.route.words}"


class RouteAdded(Model):
    """A route of our own: a more specific copy of the route to ``copy_of``, with quickack 1.

    ``message`` is the body of its RTM_NEWROUTE.
    """

    kind: Literal["route-added"] = "route-added"
    route: RouteName
    copy_of: str
    message: str = Field(description="hexadecimal")

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"add the {self.route.words} with quickack 1, a more specific copy of {self.copy_of}"


class TableMirrored(Model):
    """Our table ``table``: a copy of main with quickack 1 on every unicast route."""

    kind: Literal["table-mirrored"] = "table-mirrored"
    family: Family
    table: int

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"mirror the IPv{self.family} table main into table {self.table} with quickack 1"


class RuleAdded(Model):
    """Our rule that sends one TCP port to our table."""

    kind: Literal["rule-added"] = "rule-added"
    family: Family
    preference: int
    selector: Literal["sport", "dport"]
    port: int
    table: int

    @property
    def words(self) -> str:
        """The change in a user's words."""
        matching = f"ipproto tcp {self.selector} {self.port}"
        return f"add the IPv{self.family} rule {self.preference}: {matching} lookup {self.table}"


class FollowerStarted(Model):
    """The process that keeps our table equal to main.

    ``start_time``, in clock ticks since boot, tells a PID that was given out again.
    """

    kind: Literal["follower"] = "follower"
    table: int
    pid: int | None = None
    start_time: int | None = None

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"start a process that lets table {self.table} follow main" + (
            f" (pid {self.pid})" if self.pid else ""
        )


Change = Annotated[
    RouteQuickack | RouteAdded | TableMirrored | RuleAdded | FollowerStarted, Field(discriminator="kind")
]


class Plan(Model):
    """What a remedy would change, in this order. No changes: it is so already, and ``notes`` say why."""

    remedy: str
    namespace: NamespaceIdentity
    scope: Scope
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()


class Refusal(Model):
    """Why there is no plan: carrying it out would harm something, or there is nothing to carry it out on."""

    reason: str
    consequence: str = "nothing was changed"
    next_step: str = ""

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
    """A receipt, read back from the kernel."""

    receipt: Receipt
    state: State
    details: tuple[Look, ...]


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
    def open_points(self) -> tuple[str, ...]:
        """What was left or failed, in words."""
        return tuple(part.words for part in self.details if part.ending in (Ending.LEFT, Ending.FAILED))
