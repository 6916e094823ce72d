"""What ``ackward lab run bypass --json`` prints: qperf and real servers, over TCP and over the bypass.

The JSON Schema of :class:`BypassReport` is published as ``docs/bypass.schema.json``.
"""

from __future__ import annotations

import statistics
from typing import Final, Literal

from pydantic import Field

from ackward.model.report import Model

SCHEMA: Final = "ackward/bypass-lab/1"


class Load(Model):
    """One run of a load: requests, how many a second, and those that failed."""

    requests: int
    per_second: float
    failed: int = 0


class Pairs(Model):
    """The same thing measured over TCP and over the bypass, in turns: the values of each turn, in its unit."""

    tcp: list[float]
    bypass: list[float]

    @property
    def ratios(self) -> list[float]:
        """Bypass over TCP, turn by turn."""
        return [there / here for here, there in zip(self.tcp, self.bypass, strict=True)]

    @property
    def medians(self) -> tuple[float, float, float]:
        """Of TCP, of the bypass, and of their ratio."""
        return statistics.median(self.tcp), statistics.median(self.bypass), statistics.median(self.ratios)


class Message(Model):
    """One size of message, bytes. Latency one way in nanoseconds, bandwidth in bits a second; as qperf tells them."""

    size: int
    latency_ns: Pairs
    bandwidth: Pairs


class ServerLoad(Model):
    """A real server under its own load, requests a second."""

    name: str
    per_second: Pairs
    failed: int = Field(description="requests that failed, over TCP and over the bypass together")
    redirected: int = Field(description="messages that went past the stack")


class BypassReport(Model):
    """Everything that was measured."""

    schema_: Literal["ackward/bypass-lab/1"] = Field(default=SCHEMA, alias="schema")
    scenario: Literal["bypass"] = "bypass"
    settings: dict[str, object]
    kernel: str
    messages: list[Message]
    servers: list[ServerLoad]
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The published JSON form."""
        return self.model_dump_json(by_alias=True, indent=2)
