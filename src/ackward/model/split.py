"""What ``ackward predict split --json`` prints: a transfer's moments, directly and over gateways.

Times are integers in nanoseconds from the client's SYN on. Nodes are numbered from the client (0) over the
gateways to the server; leg ``n`` joins node ``n`` to node ``n + 1``.
"""

from __future__ import annotations

import enum
from typing import Final, Literal

from pydantic import Field

from ackward.model.report import Model

SCHEMA: Final = "ackward/split/1"


class Variant(enum.StrEnum):
    """Ways to carry the transfer. From ``split`` to ``window`` each adds one step to the one before."""

    DIRECT = "direct"
    SPLIT = "split"
    EARLY = "early"
    POOL = "pool"
    WINDOW = "window"
    OPTIMISTIC = "optimistic"
    FAITHFUL = "faithful"
    LIMIT = "limit"


#: What each variant is, in a few words.
MEANING: Final[dict[Variant, str]] = {
    Variant.DIRECT: "one connection from end to end",
    Variant.SPLIT: "a connection a leg; each gateway accepts, then connects onward",
    Variant.EARLY: "and the SYN starts the next leg while its own handshake runs",
    Variant.POOL: "and legs between gateways are connected beforehand",
    Variant.WINDOW: "and those legs have no slow start",
    Variant.OPTIMISTIC: "all of these; the client is connected at once",
    Variant.FAITHFUL: "all of these; the client is connected once the server is",
    Variant.LIMIT: "the path's round trip and bandwidth, nothing else",
}


HopKind = Literal["syn", "syn-ack", "ack", "request", "announce", "answer", "data"]


class Hop(Model):
    """One message, or one flight of data segments, over one leg. ``announce`` is a SYN as payload of a pooled leg.

    ``answer`` tells the entry gateway that the server accepted. A flight leaves at its first segment's moment
    and has arrived with its last.
    """

    kind: HopKind
    sender: int
    receiver: int
    at_ns: int
    arrives_ns: int
    segments: int = Field(default=0, description="of a flight of data")


class Timeline(Model):
    """The moments of one variant, and how many times sooner they come than directly."""

    variant: Variant
    client_connected_ns: int | None = Field(description="the SYN-ACK arrives; null for the limit")
    server_connected_ns: int | None = Field(description="the last ACK of the server's handshake arrives")
    first_byte_ns: int = Field(description="the first segment of the answer arrives at the client")
    download_ns: int = Field(description="the last one arrives, in order")
    first_byte_ratio: float = Field(description="the direct connection's first byte, divided by this one's")
    download_ratio: float


class Ladder(Model):
    """The messages of one variant for a small answer, to be drawn."""

    variant: Variant
    first_byte_ns: int
    download_ns: int
    hops: list[Hop]


class SplitLeg(Model):
    """A leg, or the direct path, as it was assumed."""

    rtt_ns: int
    loss: float


class SplitInput(Model):
    """What the prediction rests on."""

    legs: list[SplitLeg]
    direct: SplitLeg
    size_bytes: int
    bandwidth_bits: int | None = Field(
        description="of every leg, bit/s with IP and TCP headers; null: no limit"
    )
    initial_window: int = Field(description="segments")
    receive_window_bytes: int
    mss: int = Field(description="payload bytes of a full segment")
    relay_ns: int = Field(description="what a gateway adds to what it forwards")


class Advice(Model):
    """Whether gateways would pay for this transfer."""

    split: bool
    why: str
    notes: list[str]


class SplitPrediction(Model):
    """The prediction for one transfer over one chain of gateways."""

    schema_: Literal["ackward/split/1"] = Field(default=SCHEMA, alias="schema")
    input: SplitInput
    variants: list[Timeline]
    advice: Advice
    ladder_bytes: int = Field(description="the answer whose messages ``ladders`` show")
    ladders: list[Ladder]

    def of(self, variant: Variant) -> Timeline:
        """The moments of one variant."""
        return next(timeline for timeline in self.variants if timeline.variant is variant)

    def to_json(self) -> str:
        """The published JSON form."""
        return self.model_dump_json(by_alias=True, indent=2)
