"""Faithful: a SYN is held until the server has answered, then let through or refused as the server's host refused it.

Laws:

- A client is connected only if its server is; a refused client gets the reset, or the ICMP message, that it would have
  got without us.
- Held SYNs are bounded in number and in rate; beyond that they are dropped, and their clients ask again.
- If this process dies the kernel drops what is held, and later SYNs pass (``--queue-bypass``).
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Final

from ackward.errors import Unavailable
from ackward.gateway.connection import tell_unjoined
from ackward.gateway.counters import Count
from ackward.gateway.limits import TokenBucket
from ackward.gateway.listeners import Entrance
from ackward.gateway.loop import READ
from ackward.gateway.resources import Deadlines, Resources
from ackward.gateway.settings import Address, End
from ackward.gateway.targets import Target
from ackward.gateway.upstream import Attempt
from ackward.kernel.nfqueue import Queues, Verdict, verdict

#: IPv6 and the longest TCP header.
_COPIED: Final = 128
_PROTOCOL: Final = socket.IPPROTO_TCP
_RST_ACK: Final = 0x14
_TTL: Final = 64
_HOST_UNREACHABLE, _NO_ROUTE_6 = (3, 1), (1, 0)  # RFC 792; RFC 4443 section 3.1
#: What is answered with ICMP, and what with silence, as a server's host or the way there would; the rest is a reset.
_UNREACHABLE: Final = {End.UNREACHABLE}
_SILENT: Final = {End.CONNECT_TIMEOUT, End.UNCLAIMED}

Key = tuple[Address, Address]


@dataclass(slots=True)
class _Waiting:
    """A client whose SYN came: its attempt, the packet (0: let through already), and its first bytes."""

    attempt: Attempt
    began: float
    door: Entrance
    identity: int
    packet: bytes


class Holding:
    """The held SYNs of all faithful listeners; in one worker, which accepts all their connections, too."""

    def __init__(
        self, resources: Resources, queue: int, targets: list[Target], doors: Mapping[int, Entrance]
    ) -> None:
        """``doors``: the entrances of faithful listeners, by number. Raises :class:`Unavailable`."""
        self._resources, self._queue, self._doors = resources, queue, doors
        #: With the number of the interface that they are for; 0: any.
        self._targets = [
            (target, socket.if_nametoindex(target.interface) if target.interface else 0)
            for target in targets
            if target.listener in doors
        ]
        limits = resources.settings.limits
        self._bucket = TokenBucket(limits.early_rate, time.monotonic())
        self._waiting: dict[Key, _Waiting] = {}
        # For clients that were let through. One whose SYN-ACK is lost says SYN again, after a second at first. What
        # is held needs no deadline of its own: an attempt is answered or fails within the connect limit.
        self._deadlines = Deadlines(resources.loop, limits.early_wait)
        try:
            self._queues = Queues((queue,), copied=_COPIED, longest=2 * limits.early_pending)
            self._raw = {family: _raw(family) for family in (socket.AF_INET, socket.AF_INET6)}
        except OSError as error:
            raise Unavailable(
                f"SYNs cannot be held ({error.strerror or error})",
                consequence="faithful listeners cannot be served; the gateway was not started",
                next_step="run as root on a kernel with NFQUEUE, or use `optimistic`",
            ) from error
        resources.loop.add(self._queues.socket.fileno(), READ, self._ready)

    def _ready(self, _: int) -> None:
        for _queue, identity, interface, packet in self._queues.arrived():
            self._enter(identity, interface, packet)
        self._count()

    def _enter(self, identity: int, interface: int, packet: bytes) -> None:
        ends = read_syn(packet)
        door = self._door(ends[1], interface) if ends else None
        if ends is None or door is None:
            self._settle(identity, Verdict.ACCEPT)  # none of ours
            return
        earlier = self._waiting.get(ends)
        if earlier is not None:
            # The same SYN again. Held: once is enough. Let through: the answer to it was lost.
            self._settle(identity, Verdict.DROP if earlier.identity else Verdict.ACCEPT)
            return
        client, local = ends
        limits, now = self._resources.settings.limits, time.monotonic()
        destination = door.wanted(local)
        if destination is None or len(self._waiting) >= limits.early_pending or not self._bucket.take(now):
            self._resources.counters.add(Count.EARLY_REFUSED)
            self._settle(identity, Verdict.DROP)
            return
        self._resources.counters.add(Count.EARLY_BEGUN)
        attempt = door.begin(destination, client)
        self._waiting[ends] = waiting = _Waiting(attempt, now, door, identity, packet)
        changed = partial(self._changed, ends, waiting)
        attempt.watch(changed)
        changed()

    def _door(self, local: Address, interface: int) -> Entrance | None:
        for target, only in self._targets:
            if only in (0, interface) and target.matches(local):
                return self._doors[target.listener]
        return None

    def _changed(self, key: Key, waiting: _Waiting) -> None:
        if waiting.attempt.end is not None:
            if self._waiting.get(key) is waiting:
                del self._waiting[key]
                self._refuse(key, waiting, waiting.attempt.end)
        elif waiting.attempt.answered and waiting.identity:
            self._settle(waiting.identity, Verdict.ACCEPT)
            waiting.identity = 0
            self._deadlines.add(partial(self._overdue, key, waiting))
        self._count()

    def _refuse(self, key: Key, waiting: _Waiting, end: End) -> None:
        client, local = key
        if waiting.identity:
            self._settle(waiting.identity, Verdict.DROP)
            self._answer(waiting.packet, end)
        tell_unjoined(
            self._resources, waiting.door, client, waiting.door.wanted(local) or local, waiting.began, end
        )

    def _answer(self, packet: bytes, end: End) -> None:
        if end in _SILENT:
            return
        family = socket.AF_INET if packet[0] >> 4 == 4 else socket.AF_INET6
        answer, client = (unreachable if end in _UNREACHABLE else reset)(packet)
        try:
            self._raw[family].sendto(answer, (client, 0))
        except OSError:
            return  # the way back is gone, or full: so is everything that could be said

    def _overdue(self, key: Key, waiting: _Waiting) -> None:
        """The client did not come, although its SYN was let through."""
        if self._waiting.get(key) is waiting:
            del self._waiting[key]
            waiting.attempt.abandon()
            self._refuse(key, waiting, waiting.attempt.end or End.UNCLAIMED)
            self._count()

    def claim(self, client: Address, local: Address) -> tuple[Attempt, float] | None:
        """The attempt of a client that was let through, and when its SYN came."""
        waiting = self._waiting.pop((client, local), None)
        if waiting is None:
            return None
        self._resources.counters.add(Count.EARLY_CLAIMED)
        self._count()
        return waiting.attempt, waiting.began

    def _settle(self, identity: int, what: Verdict) -> None:
        self._queues.settle([verdict(self._queue, identity, what)])

    def _count(self) -> None:
        self._resources.counters.set(Count.HELD_SYNS, len(self._waiting))

    def close(self) -> None:
        """Hold nothing any more; what is held is dropped."""
        self._resources.loop.remove(self._queues.socket.fileno())
        for key, waiting in list(self._waiting.items()):
            waiting.attempt.abandon()
            self._refuse(key, waiting, End.STOPPED)
        self._waiting.clear()
        self._count()
        self._queues.close()
        for raw in self._raw.values():
            raw.close()


def _raw(family: int) -> socket.socket:
    """IPPROTO_RAW: what is sent has its IP header already. Nobody waits for it: what finds no room is lost."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    return socket.socket(family, kind, socket.IPPROTO_RAW)


def _split(packet: bytes) -> tuple[bytes, bytes, int]:
    """An IP packet's source and destination, and where its TCP header begins."""
    if packet[0] >> 4 == 4:
        return packet[12:16], packet[16:20], (packet[0] & 15) * 4
    return packet[8:24], packet[24:40], 40


def read_syn(packet: bytes) -> Key | None:
    """(client, local address) of a SYN; None for what is none, or has IPv6 extension headers."""
    if len(packet) < 40 or (packet[0] >> 4 == 6 and (packet[6] != _PROTOCOL or len(packet) < 60)):
        return None
    source, destination, start = _split(packet)
    source_port, destination_port = struct.unpack_from("!HH", packet, start)
    return (str(ip_address(source)), source_port), (str(ip_address(destination)), destination_port)


def reset(syn: bytes) -> tuple[bytes, str]:
    """The reset that a host sends whose port is closed (RFC 9293, section 3.10.7.1), and to whom."""
    client, local, start = _split(syn)
    client_port, local_port, sequence = struct.unpack_from("!HHI", syn, start)
    header = struct.pack(
        "!HHIIBBHHH", local_port, client_port, 0, (sequence + 1) & 0xFFFFFFFF, 5 << 4, _RST_ACK, 0, 0, 0
    )
    pseudo = local + client + struct.pack("!IHBB", len(header), 0, 0, _PROTOCOL)
    header = header[:16] + struct.pack("!H", checksum(pseudo + header)) + header[18:]
    return _ip(local, client, _PROTOCOL, header), str(ip_address(client))


def unreachable(syn: bytes) -> tuple[bytes, str]:
    """The ICMP message that a router sends which has no way there (RFC 792, RFC 4443), and to whom."""
    client, local, start = _split(syn)
    quoted = syn[: start + 8]
    if len(client) == 4:
        message = struct.pack("!BBHI", *_HOST_UNREACHABLE, 0, 0) + quoted
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        return _ip(local, client, socket.IPPROTO_ICMP, message), str(ip_address(client))
    message = struct.pack("!BBHI", *_NO_ROUTE_6, 0, 0) + quoted
    pseudo = local + client + struct.pack("!IHBB", len(message), 0, 0, socket.IPPROTO_ICMPV6)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    return _ip(local, client, socket.IPPROTO_ICMPV6, message), str(ip_address(client))


def _ip(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """An IP packet; the kernel fills in IPv4's checksum and identification (raw(7))."""
    if len(source) == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, _TTL, protocol, 0)
    else:
        header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, _TTL)
    return header + source + destination + payload


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
