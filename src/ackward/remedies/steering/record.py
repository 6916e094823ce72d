"""What the hook in the kernel is told and what it tells: the structs of steering.bpf.c in words. Pure."""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from ackward.model.changes import SocketOption
from ackward.model.scopes import SocketScope

Network = IPv4Network | IPv6Network

ALL_PORTS = (0, 0xFFFF)
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291, section 2.5.5.2
_SCOPE = struct.Struct("=QQII16s16sIIIIIIHHI")
_COUNTERS = struct.Struct("=5Q")
_NOTE = struct.Struct("=II")
COUNTERS_SIZE, SCOPE_SIZE, NOTE_SIZE = _COUNTERS.size, _SCOPE.size, _NOTE.size


class Numbers(NamedTuple):
    """An option as bpf_setsockopt() and as setsockopt(2) number it."""

    level: int
    in_kernel: int
    in_user_space: int


#: TCP_BPF_DELACK_MAX is 1003 in include/uapi/linux/bpf.h, TCP_DELACK_MAX_US 46 in tcp.h (about Linux 6.15).
NUMBERS = {
    "TCP_NODELAY": Numbers(socket.IPPROTO_TCP, socket.TCP_NODELAY, socket.TCP_NODELAY),
    "SO_MARK": Numbers(socket.SOL_SOCKET, socket.SO_MARK, socket.SO_MARK),
    "TCP_DELACK_MAX": Numbers(socket.IPPROTO_TCP, 1003, 46),
}


class Counters(NamedTuple):
    """What the hook saw and did: struct counters."""

    seen: int
    set: int
    already: int
    failed: int
    overruled: int

    @classmethod
    def parse(cls, data: bytes) -> Counters:
        """From the map's bytes."""
        return cls(*_COUNTERS.unpack(data))


class Note(NamedTuple):
    """What a socket's option was before us. ``entering``: our own setsockopt(2) is still to come."""

    before: int
    entering: bool = False

    def pack(self) -> bytes:
        """As struct note."""
        return _NOTE.pack(self.before, self.entering)

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """From the bytes of a struct note."""
        before, entering = _NOTE.unpack(data)
        return cls(before, bool(entering))


class Record(NamedTuple):
    """struct scope, field by field."""

    netns: int
    start_time: int
    process: int
    family: int
    network: bytes
    network_mask: bytes
    level: int
    option: int
    user_option: int
    mask: int
    value: int
    at_most: int
    first_port: int
    last_port: int
    noted_open: int

    @classmethod
    def of(cls, netns: int, scope: SocketScope, option: SocketOption) -> Record:
        """The record of a scope in the namespace with the cookie ``netns``."""
        family, network, mask = _network(ip_network(scope.to) if scope.to else None)
        numbers = NUMBERS[option.name]
        return cls(
            netns,
            scope.start_time or 0,
            scope.pid or 0,
            family,
            network,
            mask,
            *numbers,
            option.mask,
            option.value,
            int(option.name == "TCP_DELACK_MAX"),
            *(scope.ports or ALL_PORTS),
            0,
        )

    def pack(self) -> bytes:
        """As struct scope."""
        return _SCOPE.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> Record:
        """From the bytes of a struct scope."""
        return cls(*_SCOPE.unpack(data))

    @property
    def socket_option(self) -> SocketOption:
        """The option that it sets."""
        name = next(
            name
            for name, numbers in NUMBERS.items()
            if (numbers.level, numbers.in_user_space) == (self.level, self.user_option)
        )
        return SocketOption.model_validate({"name": name, "value": self.value, "mask": self.mask})

    def overlaps(self, other: Record) -> bool:
        """Whether a connection could be in both scopes, as far as the record tells, and have the same bits set."""
        if (self.netns, self.level, self.user_option) != (other.netns, other.level, other.user_option):
            return False
        apart = (
            not self.mask & other.mask
            or self.first_port > other.last_port
            or other.first_port > self.last_port
            or (self.process and other.process and self.process != other.process)
            or (self.family and other.family and self._networks_apart(other))
        )
        return not apart

    def _networks_apart(self, other: Record) -> bool:
        common = zip(self.network, self.network_mask, other.network, other.network_mask, strict=True)
        differs = any((one ^ two) & mask & other_mask for one, mask, two, other_mask in common)
        return self.family != other.family or differs


def _network(network: Network | None) -> tuple[int, bytes, bytes]:
    """Family (0: any), address and mask of 16 bytes each, IPv4 as it is mapped into IPv6."""
    if network is None:
        return 0, bytes(16), bytes(16)
    if isinstance(network, IPv4Network):
        return 4, _MAPPED + network.network_address.packed, b"\xff" * 12 + network.netmask.packed
    return 6, network.network_address.packed, network.netmask.packed


def wanted(option: SocketOption, before: int) -> int:
    """What the option becomes on a socket that has ``before``; the same if there is nothing to set."""
    if option.name == "TCP_DELACK_MAX" and before <= option.value:
        return before
    return before & ~option.mask | option.value & option.mask


def in_scope(
    scope: SocketScope,
    local: tuple[str, int],
    remote: tuple[str, int],
    cgroup_id: int | None,
    cgroups: Collection[int],
) -> bool:
    """Whether an open connection's ends and cgroup are in the scope: the same rule as in the kernel.

    ``cgroups``: the ids of the scope's cgroup and all below. The process is not looked at.
    """
    first, last = scope.ports or ALL_PORTS
    if not any(first <= port <= last for port in (local[1], remote[1])):
        return False
    if scope.to is not None and ip_address(remote[0]) not in ip_network(scope.to):
        return False
    return scope.cgroup is None or cgroup_id in cgroups
