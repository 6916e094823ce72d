"""What ``ackward sockets`` prints with ``--json``: the TCP sockets of this host and the state of their ACKs.

Times are integers in nanoseconds, as coarse as the kernel's. What privileges or the kernel do not show is null.
"""

from __future__ import annotations

import enum
from typing import Final, Literal

from pydantic import Field

from ackward.model.report import Model, Process

SCHEMA: Final = "ackward/sockets/1"


class Suspicion(enum.StrEnum):
    """Why a socket may make somebody wait right now, worst first. A snapshot suspects; `ackward watch` measures."""

    HELD_BY_NAGLE = "held-by-nagle"
    HELD_BY_CORK = "held-by-cork"
    ACK_DELAYED = "ack-delayed"
    RETRANSMITTING = "retransmitting"
    WINDOW_CLOSED = "window-closed"


class Suspect(Model):
    """One suspicion and what it rests on."""

    what: Suspicion
    why: str


State = Literal[
    "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
    "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV", "BOUND_INACTIVE",
]  # fmt: skip
Timer = Literal["retransmission", "keepalive", "time-wait", "zero-window-probe"]


class Socket(Model):
    """One TCP socket. Of the processes that hold it, ``process`` has the lowest PID."""

    state: State
    local: str
    remote: str | None = Field(description="null for a listener")
    netns: int = Field(description="the namespace's inode, as in namespaces")
    process: Process
    other_pids: list[int] = Field(default=[], description="more processes that hold the same socket")
    cgroup: str | None = Field(description="path below the cgroup v2 hierarchy")
    uid: int
    inode: int = Field(description="0: no descriptor is left")
    cookie: int | None = Field(description="of the socket, as `ss -e` prints it in hexadecimal (sk:)")
    mark: int | None
    congestion_control: str | None

    quick: int | None = Field(description="ACKs that still go out at once, if not pingpong")
    pingpong: bool | None = Field(description="interactive: ACKs wait for data to carry them")
    ato_ns: int | None = Field(description="how long an ACK is delayed; 0 before any data came")
    route_quickack: bool | None = Field(
        description="the route asks for ACKs at once, whatever quick and pingpong"
    )
    nodelay: bool | None = Field(description="TCP_NODELAY: Nagle's algorithm is off")
    cork: bool | None = Field(description="TCP_CORK: only whole segments leave")

    unacked: int | None = Field(description="segments sent and not acknowledged")
    unacked_bytes: int | None
    unsent_bytes: int | None = Field(description="written and not sent")
    unread_bytes: int | None = Field(description="received and not read")
    accept_queue: int | None = Field(default=None, description="of a listener: connections not yet accepted")
    accept_queue_limit: int | None = None

    srtt_ns: int | None
    min_rtt_ns: int | None
    rto_ns: int | None
    timer: Timer | None = Field(description="the timer that runs; that of delayed ACKs is not told")
    timer_expires_ns: int | None
    retransmits: int = Field(description="timeouts in a row, now")
    retransmitted: int | None = Field(description="segments sent again since the start")
    cwnd: int | None = Field(description="congestion window, segments")
    mss: int | None
    window_bytes: int | None = Field(description="what the peer lets us send")
    since_sent_ns: int | None = Field(description="since data was sent last, or since the start")
    since_received_ns: int | None
    since_acked_ns: int | None = Field(description="since the last ACK came")
    bytes_sent: int | None
    bytes_received: int | None
    window_limited_ns: int | None = Field(description="time spent waiting for the peer's window")
    buffer_limited_ns: int | None = Field(description="time spent with a full send buffer")
    suspects: list[Suspect] = Field(default=[], description="why it may make somebody wait now, worst first")

    @property
    def delays_acks(self) -> bool | None:
        """Whether the ACK of a next small segment would be delayed; None if that is not known.

        As __tcp_ack_snd_check() and tcp_in_quickack_mode() have it. The first data ever is acknowledged at once.
        """
        if self.route_quickack or self.ato_ns == 0:
            return False
        return None if self.quick is None else self.quick == 0 or bool(self.pingpong)


class SocketNamespace(Model):
    """A network namespace that was looked into."""

    name: str
    inode: int
    delayed_acks: int | None = Field(description="ACKs that a fired timer sent since the namespace was made")


class SocketReport(Model):
    """The sockets at one moment, suspicious ones first."""

    schema_: Literal["ackward/sockets/1"] = Field(default=SCHEMA, alias="schema")
    namespaces: list[SocketNamespace]
    sockets: list[Socket]
    notes: list[str] = Field(
        default=[], description="what could not be seen for other reasons than privileges"
    )
    root_would_add: list[str] = Field(default=[], description="what privileges keep from this report")

    def to_json(self) -> str:
        """The published JSON form."""
        return self.model_dump_json(by_alias=True, indent=2)
