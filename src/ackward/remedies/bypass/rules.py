"""What the programs in the kernel are told, and what they count: their structs, field by field."""

from __future__ import annotations

import enum
import struct
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from ackward.model.bypass import Hazard
from ackward.model.scopes import BypassScope

#: Bytes that may wait in a reader's queue because of us, unless one message alone is more (the kernel takes at most
#: some 540 kB of a write at once). TCP's own queue may grow to more (tcp_rmem: 6 MB as most systems come).
MOST_BYTES = 4 << 20
#: Each message in a queue takes a struct sk_msg (some 760 bytes) beside its payload, so their number counts too.
MOST_MESSAGES = 4096

#: Only a reader that waits inside recv() meets these.
OF_BLOCKING_READERS = frozenset({Hazard.WAITALL, Hazard.WAKEUP, Hazard.SHUT_READ})

#: struct network, struct ports, struct scope
_NETWORK = struct.Struct("=16s16s")
_PORTS = struct.Struct("=HH")
_FIRST = struct.Struct("=8I2Q")
RULES = 8
RULES_SIZE = _FIRST.size + (2 + RULES) * _NETWORK.size + (1 + RULES) * _PORTS.size + 4
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291, section 2.5.5.2

# enum criterion
_OF_CGROUP, _OF_NETNS, _OF_PORT, _TO_NETWORK, _FROM_NETWORK = 1, 2, 4, 8, 16


class Rules(NamedTuple):
    """struct scope: whose connections join, and how much may wait. ``netns``: the cookie of a namespace; 0: any."""

    scope: BypassScope
    netns: int = 0
    cgroup_id: int = 0
    joining: bool = True
    redirecting: bool = True
    most_bytes: int = MOST_BYTES
    most_messages: int = MOST_MESSAGES

    def pack(self) -> bytes:
        """As struct scope."""
        scope = self.scope
        asked = (
            (_OF_CGROUP if scope.cgroup is not None else 0)
            | (_OF_NETNS if self.netns else 0)
            | (_OF_PORT if scope.ports is not None else 0)
            | (_TO_NETWORK if scope.to is not None else 0)
            | (_FROM_NETWORK if scope.source is not None else 0)
        )
        networks = [_network(scope.to), _network(scope.source), *map(_network, scope.excluded_networks)]
        ports = [scope.ports or (0, 0), *scope.excluded_ports]
        return (
            _FIRST.pack(
                self.joining,
                self.redirecting,
                asked,
                self.most_bytes,
                self.most_messages,
                len(scope.excluded_networks),
                scope.joins == "learned",
                scope.joins == "learned" and not set(scope.accepted) >= OF_BLOCKING_READERS,
                self.cgroup_id,
                self.netns,
            )
            + b"".join(networks).ljust((2 + RULES) * _NETWORK.size, b"\0")
            + b"".join(_PORTS.pack(*pair) for pair in ports).ljust((1 + RULES) * _PORTS.size, b"\0")
            + bytes(4)
        )


def without(told: bytes, *, joining: bool, redirecting: bool) -> bytes:
    """What was told (a struct scope), with both switches set anew."""
    return struct.pack("=II", joining, redirecting) + told[8:]


def switches(told: bytes) -> tuple[bool, bool]:
    """Whether connections still join, and whether messages are still redirected."""
    joining, redirecting = struct.unpack_from("=II", told)
    return bool(joining), bool(redirecting)


def _network(text: str | None) -> bytes:
    if text is None:
        return bytes(_NETWORK.size)
    network: IPv4Network | IPv6Network = ip_network(text)
    if isinstance(network, IPv4Network):
        return _NETWORK.pack(_MAPPED + network.network_address.packed, b"\xff" * 12 + network.netmask.packed)
    return _NETWORK.pack(network.network_address.packed, network.netmask.packed)


class Counters(NamedTuple):
    """struct counters: enum counter, summed over the processors."""

    joined: int
    left: int
    out_of_scope: int
    forbidden: int
    mptcp: int
    fast_open: int
    other_owner: int
    has_ulp: int
    table_full: int
    sampled: int
    streams: int
    blocks: int
    peculiar: int
    wrote_early: int
    ambiguous: int
    redirected: int
    redirected_bytes: int
    passed_unpaired: int
    passed_behind: int
    passed_full: int
    passed_many: int
    passed_memory: int
    passed_window: int
    passed_closing: int
    passed_stopped: int
    overlapped: int
    connected_anew: int

    @classmethod
    def parse(cls, values: list[bytes]) -> Counters:
        """From one value for each processor."""
        return cls(*map(sum, zip(*(_COUNTERS.unpack(value) for value in values), strict=True)))

    @property
    def passed(self) -> int:
        """Messages of members that went over TCP."""
        return (
            self.passed_unpaired
            + self.passed_behind
            + self.passed_full
            + self.passed_many
            + self.passed_memory
            + self.passed_window
            + self.passed_closing
            + self.passed_stopped
        )


_COUNTERS = struct.Struct(f"={len(Counters._fields)}Q")
COUNTERS_SIZE = _COUNTERS.size


class Survey(NamedTuple):
    """struct survey: the members as they are now."""

    ends: int
    connections: int
    waiting_ends: int
    waiting_bytes: int
    most_waiting_bytes: int

    @classmethod
    def parse(cls, data: bytes) -> Survey:
        """From the map's bytes."""
        return cls(*_SURVEY.unpack(data))


_SURVEY = struct.Struct("=5Q")
SURVEY_SIZE = _SURVEY.size


class Manner(enum.IntEnum):
    """enum manner: what was learned about a service."""

    UNDECIDED = 0
    JOINS = 1
    STREAMS = 2
    BLOCKS = 3
    PECULIAR = 4


class Service(NamedTuple):
    """struct service and struct learned: whose ways were learned.

    ``cgroup`` and ``client``: the ids of the server's and of its clients'. ``within``: of clients in the server's
    own namespace. ``turns`` and ``segments``: of the samples, the way that had fewer segments and the other way.
    ``writes`` and ``written``: of both ends, how many and their bytes; ``sent`` and ``carried``: the segments that they
    became, and their bytes.
    """

    cgroup: int
    client: int
    port: int
    within: bool
    manner: Manner
    connections: int
    turns: int
    segments: int
    writes: int
    written: int
    sent: int
    carried: int

    @classmethod
    def parse(cls, key: bytes, value: bytes) -> Service:
        """From an entry's bytes."""
        cgroup, client, port, within = _SERVICE.unpack(key)
        manner, *counts = _LEARNED.unpack(value)
        return cls(cgroup, client, port, bool(within), Manner(manner), *counts)


_SERVICE = struct.Struct("=QQII")
_LEARNED = struct.Struct("=I12x7Q")
SERVICE_SIZE, LEARNED_SIZE = _SERVICE.size, _LEARNED.size
