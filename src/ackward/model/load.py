"""What a host does while it is measured: the kernel's own counters."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from ackward.model.report import Model


@dataclass(frozen=True)
class Counters:
    """Counters of one namespace, and the host's processors, at one moment; all of them only grow.

    ``acks`` are segments sent without data. ``kernel_ns`` is processor time in the kernel, of all processors together.
    """

    time_ns: int
    acks: int
    received: int
    data_sent: int
    retransmitted: int
    kernel_ns: int


class Load(Model):
    """The same over a measured phase, a second."""

    acks: float = Field(description="segments sent without data")
    received: float = Field(description="segments received")
    data_sent: float = Field(description="segments sent with new data")
    retransmitted: float
    kernel_cores: float = Field(description="processors that were busy in the kernel, of the whole host")
