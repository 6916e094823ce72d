"""The single changes that remedies make: what is set, and what is needed to take it back.

A change holds the fields that we set, never a snapshot of what was around them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ackward.model.report import Model

#: Marks our routes and rules in the kernel, so that they are recognisable with the receipt lost. RTPROT_* in
#: include/uapi/linux/rtnetlink.h and iproute2's rt_protos leave 172 unassigned.
OUR_PROTOCOL = 0xAC

Family = Literal[4, 6]


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
