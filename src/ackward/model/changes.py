"""The single changes that remedies make: what is set, and what is needed to take it back.

A change holds the fields that we set, never a snapshot of what was around them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ackward.model.gateways import IngressRuleAdded, LocalRouteAdded, QueueRuleAdded
from ackward.model.pins import KeeperStarted, MarkRuleAdded
from ackward.model.report import Model
from ackward.model.scopes import BypassScope, SocketScope

#: Marks our routes and rules in the kernel, so that they are recognisable with the receipt lost. RTPROT_* in
#: include/uapi/linux/rtnetlink.h and iproute2's rt_protos leave 172 unassigned.
OUR_PROTOCOL = 0xAC

Family = Literal[4, 6]

#: Metrics of a route, as ``ip route`` names them: RTAX_QUICKACK, RTAX_INITCWND, RTAX_INITRWND.
Metric = Literal["quickack", "initcwnd", "initrwnd"]


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


class RouteMetric(Model):
    """One metric (RTAX_*) of one route that is not ours. 0 is how the kernel says absent."""

    kind: Literal["route-metric"] = "route-metric"
    route: RouteName
    metric: Metric
    before: int
    after: int

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"set {self.metric} {self.after} on the {self.route.words}"


class RouteAdded(Model):
    """A route of our own: a more specific copy of the route to ``copy_of``, with other ``metrics``.

    Remedies share it: the second adds its metrics to the first one's copy, and the last that is undone deletes it.
    ``before`` are the metrics of the route that was copied, ``message`` is the body of the RTM_NEWROUTE.
    """

    kind: Literal["route-added"] = "route-added"
    route: RouteName
    copy_of: str
    metrics: dict[Metric, int]
    before: dict[Metric, int]
    message: str = Field(description="hexadecimal")

    @property
    def metric_words(self) -> str:
        """The metrics as ``ip route`` would name them."""
        return " ".join(f"{metric} {value}" for metric, value in self.metrics.items())

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"add the {self.route.words} with {self.metric_words}, a more specific copy of {self.copy_of}"


class SysctlSet(Model):
    """A setting of the namespace, by its name as sysctl(8) has it."""

    kind: Literal["sysctl"] = "sysctl"
    name: str
    before: str
    after: str

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"set {self.name}={self.after}"


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


class Leased(Model):
    """What ends the remedy when its time is up: a timer of systemd, or else a process of ours.

    The clock that counts is CLOCK_BOOTTIME, which goes on while the machine sleeps and is set by nobody; ``ends`` is
    the same moment for people. ``start_time``, in clock ticks since boot, tells a PID that was given out again.
    """

    kind: Literal["lease"] = "lease"
    ends: str = Field(description="ISO 8601, UTC")
    ends_boottime_ns: int
    timer: str | None = Field(default=None, description="the name of systemd's timer")
    pid: int | None = None
    start_time: int | None = None

    @property
    def holder(self) -> str:
        """Who ends it, in a user's words."""
        return self.timer or f"pid {self.pid}"

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"take all of it back at {self.ends} ({self.holder})"


class Persisted(Model):
    """The systemd unit that applies the request again at each boot."""

    kind: Literal["persisted"] = "persisted"
    unit: str = Field(description="its file")
    text: str

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"write and enable {self.unit}, which applies it again at each boot"


#: How long a remedy lasts: made, read back and taken back in the same way for every remedy.
DURATIONS = (Leased, Persisted)


class SocketOption(Model):
    """An option of a socket, and the value of those of its bits that are in ``mask``.

    TCP_DELACK_MAX, in microseconds, is an upper bound: a socket with less keeps it.
    """

    name: Literal["TCP_NODELAY", "SO_MARK", "TCP_DELACK_MAX"]
    value: int
    mask: int = 0xFFFFFFFF

    @property
    def words(self) -> str:
        """The option in a user's words."""
        if self.name == "SO_MARK":
            return f"the mark {self.value:#x}/{self.mask:#x}"
        return self.name if self.name == "TCP_NODELAY" else f"{self.name} {self.value / 1000:g} ms"


class SocketsSteered(Model):
    """Our hook in the kernel, which sets an option on each connection of the scope as it is established."""

    kind: Literal["sockets-steered"] = "sockets-steered"
    option: SocketOption
    scope: SocketScope

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"give each new connection {self.option.words} ({self.scope.words})"


class OpenSocketsSet(Model):
    """The option on connections that were open already; ``count`` of them got it from us."""

    kind: Literal["open-sockets"] = "open-sockets"
    option: SocketOption
    scope: SocketScope
    count: int | None = None

    @property
    def words(self) -> str:
        """The change in a user's words."""
        how_many = "" if self.count is None else f"{self.count} "
        noun = "connection" if self.count == 1 else "connections"
        return f"give {how_many}open {noun} {self.option.words} ({self.scope.words})"


class BypassInstalled(Model):
    """Our programs in the kernel that join the two ends of a connection within this host."""

    kind: Literal["bypass"] = "bypass"
    scope: BypassScope

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"join new {self.scope.words}"


Change = Annotated[
    RouteMetric
    | RouteAdded
    | SysctlSet
    | TableMirrored
    | RuleAdded
    | FollowerStarted
    | SocketsSteered
    | OpenSocketsSet
    | BypassInstalled
    | MarkRuleAdded
    | KeeperStarted
    | LocalRouteAdded
    | IngressRuleAdded
    | QueueRuleAdded
    | Leased
    | Persisted,
    Field(discriminator="kind"),
]
