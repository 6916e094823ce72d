"""Segments and socket events as every source delivers them: one table for live sockets and for captures.

A row is one segment as one vantage point saw it, or something that happened inside a host (a write that the kernel
held back, a delayed-ACK timer that fired). Columns of socket state are filled when the kernel told us; a capture
leaves them zero and ``has_state`` false. Sequence numbers are the 32-bit numbers of the wire.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Kind(enum.IntEnum):
    """What a row is. The first six are the recorder's own numbers (``segments.bpf.c``)."""

    SENT = 1
    RECEIVED = 2
    WRITE_HELD = 3
    ACK_TIMER = 4
    ESTABLISHED = 5
    CLOSED = 6
    PASSED = 7  # a segment on the wire, seen from outside both hosts


class Vantage(enum.IntEnum):
    """Where a row was seen."""

    CLIENT = 0
    SERVER = 1
    WIRE = 2


class Flag(enum.IntFlag):
    """TCP header flags (RFC 9293 section 3.1)."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16


class Passage(enum.IntFlag):
    """What a packet tells of how it passed the host that captured it; none of them if it tells nothing."""

    LEFT = 1  # that host sent it
    ARRIVED = 2  # it came for that host
    UNSUMMED = 4  # a SYN whose checksum was still to be computed, by the sender's network card


class Nonagle(enum.IntFlag):
    """``tcp_sock.nonagle`` (include/net/tcp.h)."""

    OFF = 1  # TCP_NODELAY
    CORK = 2


#: A window that was not 0, of a connection whose SYNs were not seen: its scale could be any (RFC 7323 section 2.2).
WINDOW_UNTOLD = 0xFFFF_FFFF
#: What every source can tell of a segment. Times in nanoseconds; ``bytes`` is payload on the wire, also where the
#: capture kept less; ``segments`` counts what offload merged into one packet; ``window`` is scaled, in bytes;
#: ``sack_left`` and ``sack_right`` are the first SACK block, both 0 without one; ``dsack`` tells that it reports a
#: duplicate: it lies below ``ack``, or within the second block (RFC 2883 section 4); ``packet`` is the packet's number
#: in its capture, from 0.
WIRE_FIELDS: list[tuple[str, str]] = [
    ("time_ns", "i8"),
    ("flow", "i4"),
    ("seq", "u4"),
    ("ack", "u4"),
    ("bytes", "u4"),
    ("window", "u4"),
    ("sack_left", "u4"),
    ("sack_right", "u4"),
    ("tsval", "u4"),
    ("tsecr", "u4"),
    ("packet", "i8"),
    ("segments", "u2"),
    ("tcp_flags", "u1"),
    ("dsack", "?"),
    ("to_server", "?"),
]
#: A row of a capture, compact: captures have many. ``passage`` is a :class:`Passage`.
WIRE_SEGMENT: np.dtype[Any] = np.dtype([*WIRE_FIELDS, ("passage", "u1")])
#: One row of the diagnosis: a segment with its socket's state beside it. cwnd and in_flight in segments.
SEGMENT: np.dtype[Any] = np.dtype(
    [
        *WIRE_FIELDS,
        ("vantage", "u1"),
        ("kind", "u1"),
        ("has_state", "?"),
        ("write_seq", "u4"),
        ("snd_nxt", "u4"),
        ("snd_una", "u4"),
        ("srtt_us", "u4"),
        ("min_rtt_us", "u4"),
        ("peer_window", "u4"),
        ("cwnd", "u2"),
        ("in_flight", "u2"),
        ("mss", "u2"),
        ("nonagle", "u1"),
        ("quick", "u1"),
        ("pingpong", "u1"),
        ("ack_pending", "u1"),
        ("ato", "u1"),
        ("ca_state", "u1"),
    ]
)
Segments = NDArray[Any]  # of dtype SEGMENT


@dataclass(frozen=True)
class Endpoint:
    """An address and a port; prints as one."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        address = _in_words(self.address)
        return f"[{address}]:{self.port}" if self.address.version == 6 else f"{address}:{self.port}"


# An address is in many endpoints, and writing it takes ten times as long as finding it.
_in_words = functools.lru_cache(maxsize=1 << 14)(str)


@dataclass(frozen=True)
class Owner:
    """Who owns a socket, as far as the host that was watched can tell."""

    netns: int | None = None
    netns_name: str | None = None
    pid: int | None = None
    command: str | None = None
    container: str | None = None
    container_name: str | None = None
    pod: str | None = None
    node: str | None = None


@dataclass(frozen=True)
class FastExchanges:
    """Sums over exchanges that were too fast to be recorded one by one; times in nanoseconds.

    ``request`` runs from the first request byte to the last, ``wait`` from there to the first answer byte, ``response``
    from there to the last answer byte; together with ``handshake`` they are the elapsed time as this end saw it.
    """

    count: int = 0
    handshake_ns: int = 0
    request_ns: int = 0
    wait_ns: int = 0
    response_ns: int = 0


@dataclass(frozen=True)
class SocketFacts:
    """One end of a flow as its own host knows it.

    ``is_client`` is a fact where ``role_seen``, that is where the handshake was; else it is inferred.
    """

    flow: int
    local: Endpoint
    remote: Endpoint
    is_client: bool
    role_seen: bool
    owner: Owner
    fast: FastExchanges
    bytes_sent: int = 0
    bytes_received: int = 0
    min_rtt_ns: int = 0
    mptcp: bool = False
    mapped: bool = False
    shed: bool = False


@dataclass(frozen=True)
class Recording:
    """What a live source gives to the diagnosis.

    ``segments["flow"]`` names the socket in ``sockets`` by its ``flow``.
    """

    segments: Segments
    sockets: tuple[SocketFacts, ...]
    seconds: float
    source: str
    notes: tuple[str, ...] = ()
    writes_seen: bool = True
    segment_count: int = 0
    shed_flows: int = 0
