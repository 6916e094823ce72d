"""What ``ackward lab run ocean --json`` prints: transfers across an ocean, measured beside predicted.

Times are integers in nanoseconds from the client's connect() on. The JSON Schema of :class:`OceanReport` is published
as ``docs/ocean.schema.json``.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final, Literal

from pydantic import Field

from ackward.model.report import Model
from ackward.model.split import SplitPrediction, Variant

SCHEMA: Final = "ackward/ocean/1"


class Way(enum.StrEnum):
    """How the transfer goes. From ``split`` to ``window`` each adds one of the gateway's steps to the one before."""

    DIRECT = "direct"
    HAPROXY = "haproxy"
    SPLIT = "split"
    EARLY = "early"
    POOL = "pool"
    WINDOW = "window"
    FAITHFUL = "faithful"


#: Which prediction a way is held against: HAProxy is split TCP, and no more.
PREDICTED: Final[dict[Way, Variant]] = {
    Way.DIRECT: Variant.DIRECT,
    Way.HAPROXY: Variant.SPLIT,
    Way.SPLIT: Variant.SPLIT,
    Way.EARLY: Variant.EARLY,
    Way.POOL: Variant.POOL,
    Way.WINDOW: Variant.WINDOW,
    Way.FAITHFUL: Variant.FAITHFUL,
}


class Moments(Model):
    """When the client was connected, had the first byte of the answer, and had the last."""

    connected_ns: int
    first_byte_ns: int
    download_ns: int


class Transfer(Model):
    """One size by one way: each round, the median of each moment, and what was predicted."""

    way: Way
    size_bytes: int
    rounds: list[Moments]
    median: Moments
    predicted: Moments | None = Field(description="null where another flow competes: no model says it")
    first_byte_ratio: float | None = Field(description="measured by predicted")
    download_ratio: float | None


class Crossing(Model):
    """All ways under one condition."""

    loss: float = Field(description="share of the segments lost on the last mile, towards the client")
    competing: bool = Field(description="a download over the last mile alone ran beside each transfer")
    transfers: list[Transfer]

    def of(self, way: Way) -> list[Transfer]:
        """One way's transfers, the smallest first."""
        return [transfer for transfer in self.transfers if transfer.way is way]


class OceanReport(Model):
    """The whole experiment. ``prediction`` is for three initial windows, with its ladders."""

    schema_: Literal["ackward/ocean/1"] = Field(default=SCHEMA, alias="schema")
    scenario: Literal["ocean"] = "ocean"
    made: datetime = Field(description="when the run began, UTC")
    version: str = Field(description="of ackward")
    settings: dict[str, object]
    kernel: str
    crossings: list[Crossing]
    prediction: SplitPrediction
    notes: list[str]

    def to_json(self) -> str:
        """The published JSON form."""
        return self.model_dump_json(by_alias=True, indent=2)
