"""What a gateway's workers are told: frozen values. ``assembling`` makes them from a configuration that was checked.

Addresses are numeric: names are resolved by the supervisor, never by a worker, whose loop nothing may hold up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ackward.gateway import tuning
from ackward.gateway.protocol import LegFailed
from ackward.gateway.protocol_messages import Open
from ackward.gateway.responder import Known
from ackward.gateway.tuning import Buffers, PoolSize, Steps
from ackward.gateway.unacknowledged import Unacknowledged

#: A numeric IP address and a port.
Address = tuple[str, int]


class End(StrEnum):
    """Why a connection ended, in the one spelling of log, metrics and (with ``_``) counters."""

    DONE = "done"  # both directions ended in order
    CLIENT_RESET = "reset-by-client"
    SERVER_RESET = "reset-by-server"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    CONNECT_TIMEOUT = "connect-timeout"
    FORBIDDEN = "forbidden"
    BUSY = "busy"
    FAILED = "failed"
    IDLE = "idle"
    LEG_LOST = "leg-lost"  # the leg could not be made, or its peer died with it
    UNCLAIMED = "unclaimed"  # begun by a SYN whose connection never came
    STOPPED = "stopped"  # the gateway was ended
    UNACKNOWLEDGED = "unacknowledged"  # one end acknowledged nothing for too long


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """What there is to say about a connection when it is over.

    Bytes are payload, ``to_server`` what was handed to the far side. ``seconds`` is its whole time in the gateway,
    ``connect_seconds`` from its beginning until the far side was connected (None: it never was).
    """

    listener: str
    client: Address
    destination: Address
    peer: str
    early: bool
    to_server: int
    to_client: int
    seconds: float
    connect_seconds: float | None
    end: End


class Retirement(OSError):
    """The peer asks for no new connections over its legs: it drains, or accepts their key no longer. No failure."""


@dataclass(frozen=True, slots=True)
class LegFailure:
    """A leg that did not come to be. ``peer`` is empty where it did not say who it is.

    ``error`` None: none failed, and the peer, which was lost, is connected again.
    """

    peer: str
    address: Address
    error: LegFailed | OSError | None

    @property
    def reason(self) -> str:
        """A word and what it means: ``unknown-key: the peer does not know ...``, ``network: Connection refused``."""
        match self.error:
            case LegFailed():
                return f"{self.error.reason.name.lower().replace('_', '-')}: {self.error}"
            case Retirement():
                return str(self.error)
            case OSError():
                return f"network: {self.error.strerror or self.error}"
            case None:
                return "none"


@dataclass(frozen=True, slots=True)
class StuckRecord:
    """A connection of which one end acknowledges no long segments: ``address``, on a leg of ``peer`` (empty: on none).

    ``accepted``: that end connected to us. ``fragments``: routers may fragment what it is sent from now on;
    ``went_on``: they might, and then it acknowledged.
    """

    listener: str
    client: Address
    address: Address
    peer: str
    accepted: bool
    what: Unacknowledged
    fragments: bool = False
    went_on: bool = False


class Hooks(Protocol):
    """What a worker tells and asks. Made before the fork and called in each worker; must not block."""

    def ended(self, record: ConnectionRecord) -> None:
        """A connection is over."""

    def leg_failed(self, failure: LegFailure) -> None:
        """A leg's handshake failed, at either end; or a peer that was lost is there again."""

    def stuck(self, record: StuckRecord) -> None:
        """A connection does not get on, or does again."""

    def turned_away(self, listener: str, client: Address, why: str) -> None:
        """A client gets nothing here, for a reason that lies with this gateway."""

    def permits(self, peer: str, wanted: Open) -> bool:
        """Whether this peer may have a connection to there."""

    def recount(self) -> None:
        """Tell what was only counted since this was called last: now and then, and at the end."""


class Limits(tuning.Limits):
    """Times in seconds, also those that no configuration has; ``keepalive_*`` as TCP_KEEPINTVL and TCP_KEEPCNT."""

    early_wait: tuning.Seconds = 3.0
    keepalive_interval: int = 10
    keepalive_probes: int = 6


@dataclass(frozen=True, slots=True)
class FixedListener:
    """A port of ours, and where its connections go: to ``destination``, through ``peer`` or (empty) directly.

    ``destination`` is None while its name has never been resolved.
    """

    name: str
    bind: Address
    destination: Address | None
    peer: str = ""
    faithful: bool = False


@dataclass(frozen=True, slots=True)
class TransparentListener:
    """All addresses of ``network`` (CIDR), as they come in at ``interface``; the destination is the client's own.

    ``ports`` are ranges, first and last; ``keep_client``: the far connection comes from the client's address.
    ``returns``: where this gateway makes these itself, the clients' networks, and the interface at which the answers
    to them come in.
    """

    name: str
    network: str
    interface: str
    ports: tuple[tuple[int, int], ...] = ((1, 65535),)
    peer: str = ""
    faithful: bool = False
    keep_client: bool = False
    returns: tuple[tuple[str, str], ...] = ()


Listener = FixedListener | TransparentListener


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """The gateway at the far end of legs. ``key`` is the one that we use."""

    name: str
    address: Address
    key: bytes
    pool: PoolSize = field(default_factory=PoolSize)
    congestion: str = ""  # empty: the host's default
    mptcp: bool = False
    mss: int | None = None  # bytes; None: as the kernel finds it


@dataclass(frozen=True, slots=True)
class ExitSettings:
    """Where legs arrive, from ``networks`` alone (CIDRs; none: anywhere); the routes to there get the initial window.

    ``returns``: the networks of clients, and the interface at which the answers to them come in; without any,
    connections from the clients' own addresses are refused.
    """

    bind: Address
    keys: Mapping[bytes, Known]
    networks: tuple[str, ...] = ()
    congestion: str = ""
    mptcp: bool = False
    mss: int | None = None
    returns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """One gateway. ``segments`` is the initial window of legs with the step ``window``."""

    listeners: tuple[Listener, ...] = ()
    peers: tuple[PeerSettings, ...] = ()
    exits: tuple[ExitSettings, ...] = ()
    steps: Steps = field(default_factory=Steps)
    buffers: Buffers = field(default_factory=Buffers)
    limits: Limits = field(default_factory=Limits)
    workers: int = 1
    segments: int = 1000
