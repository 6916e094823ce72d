"""What ``ackward gateway status`` says. The JSON Schema is published as ``docs/gateway.schema.json``."""

from __future__ import annotations

from typing import Any, Final, Literal

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
    workers: list[dict[str, Any]] = Field(description="what each worker says of itself")

    def to_json(self) -> str:
        """The published JSON form."""
        return self.model_dump_json(by_alias=True, indent=2)
