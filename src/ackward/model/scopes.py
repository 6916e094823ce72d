"""What a remedy is to reach: which routes, which connections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ackward.model.bypass import Hazard
from ackward.model.gateways import GatewayScope
from ackward.model.pins import ProcessPins
from ackward.model.report import Model


class RouteScope(Model):
    """Routes of a namespace: its default routes, or those to ``to`` (a CIDR), or ``every`` one.

    Where peers are neighbours, as pods on one bridge are, the connected route leads to them and not a default route.
    """

    kind: Literal["routes"] = "routes"
    to: str | None = None
    every: bool = False

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        if self.to is not None:
            return f"routes to {self.to}"
        return "all routes" if self.every else "all default routes"


class PortScope(Model):
    """TCP connections whose local or remote port is ``port``."""

    kind: Literal["port"] = "port"
    port: int = Field(ge=1, le=65535)

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        return f"TCP port {self.port}"


#: An initial window three times that of RFC 6928 saves at least one round trip of any answer that needs several, and
#: fits into the 64 KiB that a receiver has room for at first.
USUAL_SEGMENTS = 30

#: A thousand segments are 1.4 MB in one burst: far more than any receiver takes at first (64 KiB), and than the
#: buffers on most paths.
MOST_SEGMENTS = 1000


class WindowScope(Model):
    """The initial windows of routes: as :class:`RouteScope`, with what they are to begin with.

    ``after_idle``: connections of the whole namespace also keep their window over a pause.
    """

    kind: Literal["initial-window"] = "initial-window"
    to: str | None = None
    segments: int = Field(ge=1, le=MOST_SEGMENTS)
    after_idle: bool = False

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        after = " and after idle" if self.after_idle else ""
        return f"{self.routes.words} with {self.segments} segments{after}"

    @property
    def routes(self) -> RouteScope:
        """The routes alone."""
        return RouteScope(to=self.to)


class SocketScope(Model):
    """TCP sockets of a namespace: those to which all that is named here applies.

    ``ports``: the first and the last of a range, local or remote. ``to``: a CIDR that holds the remote address.
    ``cgroup``: a path of the v2 hierarchy as /proc/PID/cgroup has it ("/a/b"); that and below. ``start_time`` of the
    process, in clock ticks since boot, tells a PID that was given out again.
    """

    kind: Literal["sockets"] = "sockets"
    ports: tuple[int, int] | None = None
    to: str | None = None
    cgroup: str | None = None
    pid: int | None = None
    start_time: int | None = None

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        parts = ["connections"]
        if self.ports is not None:
            first, last = self.ports
            parts = [f"TCP port {first}" if first == last else f"TCP ports {first}-{last}"]
        if self.to is not None:
            parts.append(f"to {self.to}")
        if self.cgroup is not None:
            parts.append(f"of cgroup {self.cgroup}")
        if self.pid is not None:
            parts.append(f"of process {self.pid}")
        return " ".join(parts)


class CapScope(SocketScope):
    """Sockets as :class:`SocketScope` names them, and how long at most they may delay an ACK, in microseconds."""

    kind: Literal["ack-cap"] = "ack-cap"  # type: ignore[assignment]
    cap_us: int = Field(ge=1)

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        return f"{self.sockets.words} with ACKs delayed by {self.cap_us / 1000:g} ms at most"

    @property
    def sockets(self) -> SocketScope:
        """The sockets alone."""
        return SocketScope(
            ports=self.ports, to=self.to, cgroup=self.cgroup, pid=self.pid, start_time=self.start_time
        )


class BypassScope(Model):
    """Connections within this host with an end in the namespace, by what both their ends together meet.

    ``ports``: the first and the last of a range that holds the server's port as either end knows it (NAT). ``to``
    and ``source``: CIDRs that hold the server's and the client's address as either end knows it. ``cgroup``: a path
    of the v2 hierarchy ("/a/b"); one end is in it or below. What is excluded stays out whatever else it meets.
    ``accepted``: hazards that the user takes, by name. ``joins``: those that were learned to profit, or all.
    """

    kind: Literal["bypass"] = "bypass"
    ports: tuple[int, int] | None = None
    to: str | None = None
    source: str | None = None
    cgroup: str | None = None
    excluded_ports: tuple[tuple[int, int], ...] = ()
    excluded_networks: tuple[str, ...] = ()
    accepted: tuple[Hazard, ...] = ()
    joins: Literal["learned", "all"] = "learned"

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        parts = ["connections within this host"]
        if self.ports is not None:
            parts.append(f"to {_ports(self.ports)}")
        if self.to is not None:
            parts.append(f"to {self.to}")
        if self.source is not None:
            parts.append(f"from {self.source}")
        if self.cgroup is not None:
            parts.append(f"of cgroup {self.cgroup}")
        excluded = [*map(_ports, self.excluded_ports), *self.excluded_networks]
        if excluded:
            parts.append(f"but {', '.join(excluded)}")
        return " ".join(parts)


def _ports(ports: tuple[int, int]) -> str:
    first, last = ports
    return f"port {first}" if first == last else f"ports {first}-{last}"


Scope = Annotated[
    RouteScope | PortScope | SocketScope | CapScope | WindowScope | ProcessPins | BypassScope | GatewayScope,
    Field(discriminator="kind"),
]
