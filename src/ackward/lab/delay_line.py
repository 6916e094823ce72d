"""The long link's machine room: a process in the router's namespace that holds each packet for a constant time.

``python -m ackward.lab.delay_line WAN`` (standard library only) takes packets from two NFQUEUEs, one a direction, and
gives each back to the kernel when it is due, or never. It works where netem is not built in, and unlike netem it can
lose a chosen segment. Without ``NFQA_CFG_F_GSO`` the kernel splits offloaded packets before they get here, so the link
carries, and loses, single segments, whatever the hosts' offloads are. Laws: packets of one direction leave in the
order in which they came; a packet leaves no earlier than its delay.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator

from ackward.lab.wan import ACK, Line, Losses, Wan, read

#: NFQUEUE numbers; the router's namespace is ours alone.
TO_SERVER, TO_CLIENT = 1, 2

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 3 << 8  # NFNL_SUBSYS_QUEUE, include/uapi/linux/netfilter/nfnetlink.h
_PACKET, _VERDICT, _CONFIG = 0, 1, 2  # NFQNL_MSG_*, include/uapi/linux/netfilter/nfnetlink_queue.h
_CFG_COMMAND, _CFG_PARAMETERS, _CFG_LENGTH = 1, 2, 3  # NFQA_CFG_*
_PACKET_HEADER, _VERDICT_HEADER, _PAYLOAD = 1, 2, 10  # NFQA_*
_BIND, _COPY_PACKET = 1, 2
_DROP, _ACCEPT = 0, 1
_COPIED = 128  # IPv6 and the longest TCP header
_LONGEST = 100_000  # packets; beyond it the kernel drops, as a router would
_SOL_NETLINK, _NO_ENOBUFS, _SO_RCVBUFFORCE = 270, 5, 33
_PR_SET_TIMERSLACK = 29
#: An idle virtual processor wakes 0.15 to 0.25 ms late (measured); the last stretch of a wait is spent awake.
_AWAKE_SECONDS = 0.0003


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _message(kind: int, queue: int, flags: int, payload: bytes) -> bytes:
    body = struct.pack("!BBH", 0, 0, queue) + payload
    return struct.pack("=IHHII", 16 + len(body), _SUBSYSTEM | kind, flags, 0, 0) + body


class Queues:
    """The netlink socket to the kernel's packet queues."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self.socket.bind((0, 0))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 32 << 20)
        self.socket.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
        for number in numbers:
            self._configure(number, _attribute(_CFG_COMMAND, struct.pack("!BxH", _BIND, socket.AF_UNSPEC)))
            self._configure(number, _attribute(_CFG_PARAMETERS, struct.pack("!IB", _COPIED, _COPY_PACKET)))
            self._configure(number, _attribute(_CFG_LENGTH, struct.pack("!I", _LONGEST)))
        self.socket.settimeout(0)

    def _configure(self, queue: int, attribute: bytes) -> None:
        self.socket.send(_message(_CONFIG, queue, 0x5, attribute))  # NLM_F_REQUEST | NLM_F_ACK
        (error,) = struct.unpack_from("=i", self.socket.recv(65536), 16)
        if error:
            raise OSError(-error, f"NFQUEUE {queue}: {os.strerror(-error)}")

    def arrived(self) -> Iterator[tuple[int, int, bytes]]:
        """Everything that waits: (queue, packet id, the packet's first bytes)."""
        while True:
            try:
                data = self.socket.recv(1 << 17)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind == _SUBSYSTEM | _PACKET:
                    yield _packet(data[offset : offset + length])
                offset += (length + 3) & ~3

    def settle(self, verdicts: list[bytes]) -> None:
        """Hand verdicts to the kernel, in order."""
        if verdicts:
            self.socket.send(b"".join(verdicts))


def _packet(message: bytes) -> tuple[int, int, bytes]:
    (queue,) = struct.unpack_from("!H", message, 18)
    offset, identity, payload = 20, 0, b""
    while offset < len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if kind & 0x7FFF == _PACKET_HEADER:
            (identity,) = struct.unpack_from("!I", message, offset + 4)
        elif kind & 0x7FFF == _PAYLOAD:
            payload = message[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return queue, identity, payload


class Direction:
    """Packets on their way along one line."""

    def __init__(self, queue: int, line: Line) -> None:
        self._queue, self._line, self._losses = queue, line, Losses(line.losses)
        self._way: deque[tuple[float, int]] = deque()
        self._acks: dict[
            bytes, tuple[float, int, int]
        ] = {}  # connection -> until when, how many, the newest's id
        self._told: dict[bytes, int] = {}  # connection -> what it acknowledged last

    def enter(self, now: float, identity: int, data: bytes) -> list[bytes]:
        """A packet arrives; gives the verdicts on packets that are lost now."""
        packet = read(data)
        if packet is None:
            self._send(now, identity)
            return []
        if self._losses.take(packet):
            return [self._verdict(identity, _DROP)]
        if self._line.thin == 1:
            self._send(now, identity)
            return []
        told = self._told.get(packet.connection)
        if packet.flags & ACK and (told is None or (packet.ack - told) & 0xFFFFFFFF < 1 << 31):
            self._told[packet.connection] = packet.ack
        held = packet.is_pure_ack and told is not None and not packet.sacks
        news = (packet.ack - (told or 0)) & 0xFFFFFFFF
        # Two processors may hand over two ACKs in the wrong order.
        news = 0 if news >= 1 << 31 else news
        weight = -(-news // self._line.thin_size) if self._line.thin_size else min(news, 1)
        return self._thin(now, identity, packet.connection, weight, held=held)

    def _thin(self, now: float, identity: int, connection: bytes, weight: int, *, held: bool) -> list[bytes]:
        """Any newer segment replaces a pure ACK that waits: it acknowledges as much. A window update waits with it."""
        until, count, older = self._acks.pop(connection, (now + self._line.thin_hold / 1000, 0, -1))
        waits = older >= 0
        if held and (weight or waits) and count + weight < self._line.thin:
            self._acks[connection] = (until, count + weight, identity)
        else:
            self._send(now, identity)
        return [self._verdict(older, _DROP)] if waits else []

    def _send(self, now: float, identity: int) -> None:
        self._way.append((now + self._line.delay / 1000, identity))

    def leave(self, now: float) -> list[bytes]:
        """The verdicts on packets that are due."""
        for connection, (until, _, identity) in list(self._acks.items()):
            if until <= now:
                del self._acks[connection]
                self._send(now, identity)
        due = []
        while self._way and self._way[0][0] <= now:
            due.append(self._verdict(self._way.popleft()[1], _ACCEPT))
        return due

    def next_moment(self) -> float:
        """When something is due here next; infinity if nothing is on its way."""
        moments = [until for until, _, _ in self._acks.values()]
        if self._way:
            moments.append(self._way[0][0])
        return min(moments, default=float("inf"))

    def _verdict(self, identity: int, verdict: int) -> bytes:
        header = _attribute(_VERDICT_HEADER, struct.pack("!II", verdict, identity))
        return _message(_VERDICT, self._queue, 0x1, header)


def _be_punctual() -> None:
    """Ask for exact timers and for the processor at once; where that is refused the link is merely less exact."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # nanoseconds; 50 us is the default
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        sys.stderr.write("the delay line runs without real-time priority: expect jitter on a busy machine\n")
    gc.freeze()


def main(arguments: list[str]) -> int:
    """Be the link until ended; prints ``ready`` once packets are taken."""
    wan = Wan.from_json(arguments[0])
    try:
        queues = Queues((TO_SERVER, TO_CLIENT))
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        return 1
    directions = {
        TO_SERVER: Direction(TO_SERVER, wan.to_server),
        TO_CLIENT: Direction(TO_CLIENT, wan.to_client),
    }
    _be_punctual()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        moment = min(direction.next_moment() for direction in directions.values())
        wait = None if moment == float("inf") else max(0.0, moment - _AWAKE_SECONDS - time.monotonic())
        # select, not epoll: epoll counts in whole milliseconds.
        select.select([queues.socket], [], [], wait)
        now = time.monotonic()
        verdicts: list[bytes] = []
        for queue, identity, data in queues.arrived():
            verdicts += directions[queue].enter(now, identity, data)
        for direction in directions.values():
            verdicts += direction.leave(time.monotonic())
        queues.settle(verdicts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
