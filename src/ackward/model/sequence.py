"""The time-sequence plot of a finding: bytes of one flow over time, as Shepard drew them (MIT-LCS-TR-494, 1991).

All times are integers in nanoseconds, all sequence numbers integers in bytes.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ackward.model.causes import End

#: The most segments that one plot carries.
MOST_SEGMENTS = 2_000


class SequenceMark(BaseModel):
    """Something that happened inside one end, at ``seq`` of the data that this end sends or acknowledges."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_ns: int
    end: End
    kind: Literal["write-held", "ack-timer"]
    to_server: bool = Field(description="the direction of the data that seq counts")
    seq: int
    bytes: int = 0
    note: str = ""


class SequencePlot(BaseModel):
    """One flow around one finding, as one vantage point saw it: a table by columns, one entry a segment.

    ``at_ns`` counts from the first point. ``seq`` counts bytes from the first segment of its direction that was seen,
    ``ack``, ``sack_left`` and ``sack_right`` those of the other direction. Data of one direction are so drawn with the
    rows that go there, and their ACKs, windows and SACKs with the rows that come back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seen_from: Literal["client", "server", "between"] = Field(
        description="between: captured on the way, times estimated for the client"
    )
    stalled_to_server: bool = Field(description="the direction of the data that was stalled")
    elapsed_ns: int = Field(description="from the first point to the last")
    exchange_ns: tuple[int, int] = Field(description="start and end of the exchange that the ladder shows")
    stalls_ns: tuple[tuple[int, int], ...] = Field(description="what of the time went to the finding's cause")
    segments_seen: int = Field(description="how many there were before thinning")

    at_ns: tuple[int, ...]
    to_server: tuple[bool, ...]
    seq: tuple[int, ...]
    bytes: tuple[int, ...]
    flags: tuple[int, ...] = Field(description="bits of the TCP header: FIN 1, SYN 2, RST 4, PSH 8, ACK 16")
    ack: tuple[int | None, ...]
    window: tuple[int | None, ...] = Field(description="scaled, in bytes; null where it is not known")
    sack_left: tuple[int | None, ...]
    sack_right: tuple[int | None, ...]
    merged: tuple[int, ...] = Field(description="segments that offload merged into this one")
    packet: tuple[int, ...] = Field(description="the packet's number in its capture, from 0; empty when live")
    again: tuple[int, ...] = Field(description="rows whose bytes were all seen before")
    late: tuple[int, ...] = Field(
        description="rows that fill a hole: reordered, or the first copy was not seen"
    )
    marks: tuple[SequenceMark, ...] = ()

    @model_validator(mode="after")
    def _columns_are_equally_long(self) -> Self:
        size = len(self.at_ns)
        columns = (
            self.to_server, self.seq, self.bytes, self.flags, self.ack, self.window, self.sack_left,
            self.sack_right, self.merged, self.packet or self.at_ns,
        )  # fmt: skip
        if any(len(column) != size for column in columns):
            raise ValueError(f"columns of a sequence plot differ in length: at_ns has {size}")
        if any(not 0 <= row < size for row in (*self.again, *self.late)):
            raise ValueError(f"again and late name rows of 0 to {size - 1}")
        return self
