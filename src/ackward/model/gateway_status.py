"""What ``ackward gateway status`` says. The JSON Schema is published as ``docs/gateway.schema.json``."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from ackward.model.report import Model

SCHEMA: Final = "ackward/gateway/1"


class ListenerStatus(Model):
    """Where clients connect, and where to now."""

    name: str
    destination: str | None = Field(description="null: each client's own, or a name that has never resolved")
    peer: str | None
    answer: Literal["optimistic", "faithful"]


class PeerStatus(Model):
    """Another gateway."""

    name: str
    address: str | None = Field(description="where legs to it go; null: it only connects to us")
    keys: list[str] = Field(description="ids of the keys that are accepted; the first is used")
    allow: list[str] = Field(description="where it may connect to through this gateway")


class PoolStatus(Model):
    """The legs that one worker keeps to one peer."""

    idle: int
    wanted: int = Field(description="idle legs that there should be now")
    connected: bool = Field(description="whether the peer has proved itself and is there")
    joins: bool = Field(description="whether the peer lets further legs join without a round trip")


class StuckConnection(Model):
    """A connection of which one end, ``at``, acknowledges no long segments."""

    listener: str
    client: tuple[str, int]
    at: tuple[str, int]
    seconds: float
    segment: int = Field(description="bytes of the segment that is sent again and again")
    path_mtu: int = Field(description="bytes, as the kernel takes it to be")
    timeouts: int = Field(description="in a row")


class OpenConnection(Model):
    """A connection that is open now."""

    listener: str
    client: tuple[str, int]
    destination: tuple[str, int]
    seconds: float
    to_server: int = Field(description="payload bytes")
    to_client: int = Field(description="payload bytes")
    held: int = Field(description="bytes in the gateway, between its sockets")


class WorkerStatus(Model):
    """What one worker says of itself."""

    worker: int
    draining: bool
    connections: int
    pools: dict[str, PoolStatus] = Field(description="by peer")
    stuck: list[StuckConnection] = Field(description="at most 100")
    longest: list[OpenConnection] = Field(description="those that have lasted longest, at most 100")


class GatewayStatus(Model):
    """A running gateway."""

    schema_: Literal["ackward/gateway/1"] = Field(default=SCHEMA, alias="schema")
    name: str
    pid: int
    state: Literal["running", "draining"]
    seconds: float = Field(description="since its start")
    steps: dict[str, bool]
    notices: list[str] = Field(default=[], description="what this configuration costs on this host")
    listeners: list[ListenerStatus]
    exit: str | None = Field(description="where other gateways connect")
    peers: list[PeerStatus]
    counters: dict[str, int] = Field(description="sums over all workers; ended_* are ends of connections")
    workers: list[WorkerStatus]

    def to_json(self) -> str:
        """The published JSON form."""
        return self.model_dump_json(by_alias=True, indent=2)
