"""What a gateway changes around itself: the scope, and the changes that only it needs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ackward.model.report import Model


def _ports(first: int, last: int) -> str:
    if first <= 1 and last == 65535:
        return ""
    return f" port {first}" if first == last else f" ports {first}-{last}"


class Diverted(Model):
    """TCP for ``network`` (CIDR) and a range of ports that comes in at ``interface``: it ends here."""

    network: str
    interface: str
    first_port: int = Field(default=0, ge=0, le=65535)
    last_port: int = Field(default=65535, ge=1, le=65535)

    @property
    def words(self) -> str:
        """In a user's words."""
        return f"{self.network}{_ports(self.first_port, self.last_port)} at {self.interface}"


class Queued(Model):
    """SYNs for ``network`` and a range of ports, held in the NFQUEUE ``queue``. ``interface`` empty: any."""

    network: str
    interface: str = ""
    first_port: int = Field(ge=1, le=65535)
    last_port: int = Field(ge=1, le=65535)
    queue: int = Field(ge=0, le=65535)

    @property
    def words(self) -> str:
        """In a user's words."""
        where = f" at {self.interface}" if self.interface else ""
        return f"{self.network}{_ports(self.first_port, self.last_port)}{where}"


class Widened(Model):
    """Routes to ``network`` (CIDR), where the other gateway is, with an initial window of so many segments."""

    network: str
    segments: int

    @property
    def words(self) -> str:
        """In a user's words."""
        return f"routes to {self.network} with {self.segments} segments"


class GatewayScope(Model):
    """What is around the gateway that the process ``pid`` is.

    ``start_time``, in clock ticks since boot, tells a PID that was given out again.
    """

    kind: Literal["gateway"] = "gateway"
    pid: int
    start_time: int
    diverted: tuple[Diverted, ...] = ()
    queued: tuple[Queued, ...] = ()
    widened: tuple[Widened, ...] = ()

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        parts = [f"connections for {one.words}" for one in self.diverted]
        parts += [f"SYNs for {one.words}" for one in self.queued]
        parts += [one.words for one in self.widened]
        return f"{', '.join(parts) or 'nothing'} for the gateway that is process {self.pid}"


class LocalRouteAdded(Model):
    """Our route that makes the addresses of a network local, in a table of our own."""

    kind: Literal["local-route-added"] = "local-route-added"
    family: Literal[4, 6]
    network: str
    table: int

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"add the route local {self.network} dev lo table {self.table}"


class IngressRuleAdded(Model):
    """Our rule that sends what is diverted to our table."""

    kind: Literal["ingress-rule-added"] = "ingress-rule-added"
    family: Literal[4, 6]
    preference: int
    diverted: Diverted
    table: int

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"add the IPv{self.family} rule {self.preference}: TCP to {self.diverted.words} lookup {self.table}"


class QueueRuleAdded(Model):
    """Our iptables rule that hands SYNs to user space; without a listener there it lets them pass."""

    kind: Literal["queue-rule-added"] = "queue-rule-added"
    family: Literal[4, 6]
    queued: Queued

    @property
    def words(self) -> str:
        """The change in a user's words."""
        return f"hold SYNs for {self.queued.words} in NFQUEUE {self.queued.queue} (IPv{self.family})"
