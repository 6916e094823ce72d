"""What ``ackward trace`` prints with ``--json``: one object a line, each an event at one socket as it happened.

Times are integers in nanoseconds; ``time_ns`` and ``data_ns`` are on the clock of tcpdump (CLOCK_REALTIME). The JSON
Schema of :class:`TraceLine` is published as ``docs/trace.schema.json``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field, RootModel

from ackward.model.report import Model, Process
from ackward.model.segments import Endpoint

SCHEMA: Final = "ackward/trace/1"


@dataclass(frozen=True)
class TracedEnd:
    """Whose socket an event is of, as the source of the trace knows it."""

    local: Endpoint
    remote: Endpoint
    netns: int
    process: Process


class Outcome(enum.StrEnum):
    """What became of an ACK that the kernel did not send at once."""

    ARMED = "armed"
    FIRED = "fired"
    WITH_DATA = "with-data"
    ALONE = "alone"


class Probe(enum.StrEnum):
    """Why a kernel sent something that no program had just written."""

    TAIL_LOSS = "tail-loss-probe"
    TIMEOUT = "retransmission-timeout"
    ZERO_WINDOW = "zero-window-probe"
    REORDERING = "reordering-timeout"
    FAST = "fast-retransmit"
    UNKNOWN = "unknown"


class Because(enum.StrEnum):
    """What changed quick or pingpong."""

    DATA_SENT = "data sent"
    TIMER = "delayed-ACK timer"
    SETSOCKOPT = "setsockopt TCP_QUICKACK"
    OUT_OF_ORDER = "segment out of order"
    CONGESTION_MARK = "congestion mark"
    FIN = "FIN received"
    FIRST_DATA = "first data"
    IDLE = "data after idle"
    BUDGET = "budget spent"
    ACK_SENT = "ACK sent"
    WINDOW_GREW = "window grew"
    BUFFER_FULL = "receive buffer full"
    ROUTE = "route"
    UNKNOWN = "unknown"


#: Where the kernel does it (net/ipv4/tcp_input.c, tcp_output.c, tcp_timer.c, tcp.c).
FUNCTIONS: Final = {
    Because.FIRST_DATA: "tcp_event_data_recv, tcp_incr_quickack",
    Because.IDLE: "tcp_event_data_recv, tcp_incr_quickack",
    Because.OUT_OF_ORDER: "tcp_enter_quickack_mode",
    Because.CONGESTION_MARK: "tcp_ecn_check_ce, tcp_enter_quickack_mode",
    Because.WINDOW_GREW: "tcp_grow_window",
    Because.ACK_SENT: "tcp_dec_quickack_mode",
    Because.BUDGET: "tcp_dec_quickack_mode",
    Because.BUFFER_FULL: "tcp_clamp_window",
    Because.DATA_SENT: "tcp_event_data_sent, inet_csk_inc_pingpong_cnt",
    Because.TIMER: "tcp_delack_timer_handler",
    Because.SETSOCKOPT: "__tcp_sock_set_quickack",
    Because.FIN: "tcp_fin",
    Because.ROUTE: "sk_setup_caps",
    Because.UNKNOWN: "",
}


class AckMode(Model):
    """The state that decides whether a socket's next ACK goes out at once: ``quickack`` (``tcp_in_quickack_mode``).

    ``quick``: ACKs that still do, while ``pingpong`` is below the threshold (net.ipv4.tcp_pingpong_thresh); ``ato``:
    the delayed-ACK timer's time in jiffies; ``route``: the route asks for quick ACKs (null: this kernel does not say).
    """

    quickack: bool
    quick: int
    pingpong: int
    ato: int
    route: bool | None


class SocketEvent(Model):
    """What all events of a socket have.

    ``seq``, ``ack`` and ``bytes`` are those of the segment that was ``sent`` or ``received`` (``direction``), as in
    `tcpdump -S`; without a segment (null) they are the socket's own: the next byte to send and the next to come.
    ``relative_seq`` and ``relative_ack`` count from the SYNs, as tcpdump does that saw them.
    """

    schema_: Literal["ackward/trace/1"] = Field(default=SCHEMA, alias="schema")
    time_ns: int = Field(description="nanoseconds since 1970, CLOCK_REALTIME")
    flow: int = Field(description="a number for this end of this connection, within this trace")
    local: str
    remote: str
    direction: Literal["sent", "received"] | None
    seq: int
    ack: int
    relative_seq: int
    relative_ack: int
    bytes: int
    netns: int = Field(description="the network namespace's inode number")
    process: Process
    mode: AckMode = Field(description="just after the event")


class AckEvent(SocketEvent):
    """An ACK that the kernel did not send at once: its timer was armed, or it has left now.

    ``fired``: the delayed-ACK timer sent it. ``with-data``: data that a program wrote took it along. ``alone``:
    something else sent it (more data came, the program read or set TCP_QUICKACK). ``delay_ns``: since the oldest
    data came that it acknowledges, which is ``data_ns``.
    """

    event: Literal["ack"] = "ack"
    outcome: Outcome
    delay_ns: int
    data_ns: int


class HeldEvent(SocketEvent):
    """Bytes that a program wrote and the kernel held back have begun to leave.

    ``rule``: by Nagle's algorithm or by TCP_CORK. ``held_bytes``: how many were held when the hold began;
    ``released_by`` an ACK, or something else (a further write, a changed socket option, a timer).
    """

    event: Literal["held"] = "held"
    rule: Literal["nagle", "cork"]
    held_bytes: int
    delay_ns: int
    released_by: Literal["ack", "other"]


class ProbeEvent(SocketEvent):
    """The kernel sent something by itself: a probe, or data once more."""

    event: Literal["probe"] = "probe"
    probe: Probe


class ModeEvent(SocketEvent):
    """Pingpong was entered or left, the budget of quick ACKs was spent or filled, or the route changed its mind."""

    event: Literal["mode"] = "mode"
    before: AckMode
    because: Because


class EndEvent(SocketEvent):
    """The connection is over, whoever ended it. ``unsent_bytes``: what a program wrote and the kernel never sent."""

    event: Literal["end"] = "end"
    unsent_bytes: int


class LostEvent(Model):
    """Events that found no room since the last such line."""

    schema_: Literal["ackward/trace/1"] = Field(default=SCHEMA, alias="schema")
    time_ns: int
    event: Literal["lost"] = "lost"
    count: int


TraceEvent = AckEvent | HeldEvent | ProbeEvent | ModeEvent | EndEvent | LostEvent


class TraceLine(RootModel[Annotated[TraceEvent, Field(discriminator="event")]]):
    """One line of ``ackward trace --json``."""
