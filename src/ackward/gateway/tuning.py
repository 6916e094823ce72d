"""How a gateway goes about its work: what ``gateway.toml`` and the settings of its workers both have.

Each field stands here alone, with its default and its bounds; docs/gateway.md explains them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

Seconds = Annotated[float, Field(gt=0, le=7 * 86400, allow_inf_nan=False)]


class Part(BaseModel):
    """A table of the configuration: it cannot be changed, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Steps(Part):
    """The talk's steps, each its own switch. Splitting itself is what a gateway is."""

    early: StrictBool = True
    pool: StrictBool = True
    window: StrictBool = True
    splice: StrictBool = True


class PoolSize(Part):
    """Idle legs that one worker keeps: at least, and at most when the load asks for more."""

    least: int = Field(4, ge=1, le=4096)
    most: int = Field(256, ge=1, le=16384)

    @model_validator(mode="after")
    def _ordered(self) -> PoolSize:
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) is above most ({self.most})")
        return self


class Buffers(Part):
    """Bytes that the kernel may hold for one connection, its own overhead included.

    The receive buffer of one leg, a pipe and the send buffer of the other are what a slow reader can fill: together
    less than 8 MB.
    """

    near: int = Field(2_000_000, ge=1 << 14, le=1 << 28)
    leg: int = Field(4_900_000, ge=1 << 14, le=1 << 28)
    pipe: int = Field(1 << 20, ge=4096, le=1 << 20)


class Limits(Part):
    """Bounds, seconds where they are times; ``early_*`` and ``leg_*`` hold what strangers can cause, per worker."""

    connect: Seconds = 5.0
    idle: Seconds = 3600.0
    unacknowledged: Seconds = 120.0
    keepalive: int = Field(60, ge=1, le=32767)  # MAX_TCP_KEEPIDLE, include/net/tcp.h
    connections: int = Field(50_000, ge=1, le=1_000_000)
    early_pending: int = Field(1_024, ge=1, le=1_000_000)
    early_rate: float = Field(2_000.0, gt=0, le=1e6, allow_inf_nan=False)
    leg_handshake: Seconds = 5.0
    leg_handshakes: int = Field(4_096, ge=1, le=100_000)
    drain: Seconds = 60.0
