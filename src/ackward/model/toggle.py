"""What ``ackward lab run quickack-toggle --json`` prints: when a socket sends quick ACKs, and what switches them.

Times are integers in nanoseconds; those ending in ``at_ns`` count from the moment at which the program had accepted
the connection and had set TCP_QUICKACK. The JSON Schema of :class:`ToggleReport` is published as
``docs/quickack-toggle.schema.json``.
"""

from __future__ import annotations

import enum
from typing import Final, Literal

from pydantic import Field

from ackward.model.report import Model
from ackward.model.trace import AckMode, Because

SCHEMA: Final = "ackward/quickack-toggle/1"


class AckKind(enum.StrEnum):
    """Which rule of the kernel let an ACK of data leave when it left."""

    QUICK = "quick"
    SECOND_SEGMENT = "second segment"
    READ = "read"
    SETSOCKOPT = "setsockopt"
    TIMER = "timer"
    WITH_DATA = "with data"


class Point(Model):
    """The socket's ACK state from this moment on; ``ato`` in jiffies."""

    at_ns: int
    quickack: bool
    quick: int
    pingpong: int
    ato: int


class Ack(Model):
    """One ACK of data that came in order.

    ``delay_ns``: since the oldest data came that it acknowledges, at the socket; ``wire_delay_ns``: the same between
    packets of the capture, null if it holds no such packet. ``quick``: what is left of the budget.
    """

    at_ns: int
    phase: str
    kind: AckKind
    delay_ns: int
    wire_delay_ns: int | None
    quick: int
    seq: int = Field(description="as tcpdump counts, from the SYN")
    ack: int
    bytes: int


class Switch(Model):
    """Quick ACKs began or ended (``tcp_in_quickack_mode``)."""

    at_ns: int
    phase: str
    on: bool
    reason: Because
    function: str
    before: AckMode
    after: AckMode


class Budget(Model):
    """The kernel filled the budget of quick ACKs; it lasts until it is 0 or filled again.

    ``rule`` is what tcp_incr_quickack() gives for the window last announced and the largest segment that came, both
    read from the capture; ``filled`` is what the socket had before the first ACK was sent from it. ``spent``: the ACKs
    that took one each, of all kinds, because every ACK of new data does (a window update that finds an ACK scheduled
    takes one too, and is not among them). ``grown``: what tcp_grow_window() gave on top.
    ``left`` is what was never spent, and ``ended`` why (null: the connection ended first).
    """

    at_ns: int
    phase: str
    reason: Because
    window_bytes: int
    segment_bytes: int
    rule: int
    filled: int
    spent: dict[AckKind, int]
    grown: int
    left: int
    ended: Because | None


class Packet(Model):
    """One segment as tcpdump saw it at the host that acknowledges; ``flags`` in tcpdump's letters.

    ``delay_ns``: since the oldest data came that this segment is the first to acknowledge, null if it is not the
    first for any.
    """

    at_ns: int
    direction: Literal["sent", "received"]
    flags: str
    seq: int
    ack: int
    bytes: int
    window: int
    delay_ns: int | None


class PhaseSeen(Model):
    """One kind of traffic: how its data was acknowledged.

    ``option`` is what getsockopt(TCP_QUICKACK) said at the end. ``duplicates`` are ACKs in the capture that acknowledge
    nothing new, announce the same window and carry no data: what a hole or a repeated segment asks for.
    """

    name: str
    summary: str
    start_ns: int
    end_ns: int
    option: bool
    acks: dict[AckKind, int]
    delay_p50_ns: int | None
    delay_max_ns: int | None
    packets_received: int
    packets_sent: int
    duplicates: int


class Timeline(Model):
    """One connection. ``setting`` is what TCP_QUICKACK was set to, ``unset``, or ``route`` (unset; the route asks)."""

    setting: str
    receive_buffer: int = Field(description="SO_RCVBUF as it was set, bytes; the kernel doubles it")
    phases: tuple[PhaseSeen, ...]
    points: tuple[Point, ...]
    acks: tuple[Ack, ...]
    switches: tuple[Switch, ...]
    budgets: tuple[Budget, ...]
    packets: tuple[Packet, ...]


class FirstBudget(Model):
    """The first budget of a new connection with this receive buffer: what a smaller window does to it."""

    receive_buffer: int
    budget: Budget


class ToggleReport(Model):
    """All connections of one run on this kernel."""

    schema_: Literal["ackward/quickack-toggle/1"] = Field(default=SCHEMA, alias="schema")
    scenario: str
    settings: dict[str, object]
    kernel: str
    jiffy_ns: int | None = Field(
        description="from the first ato, which is TCP_ATO_MIN = 40 ms; null if none was seen"
    )
    lost_events: int
    notes: tuple[str, ...]
    timelines: tuple[Timeline, ...]
    first_budgets: tuple[FirstBudget, ...]

    def to_json(self) -> str:
        """Indented JSON."""
        return self.model_dump_json(by_alias=True, indent=2)
