"""Packets that netfilter hands to user space (NFQUEUE), over netlink. Standard library only.

Layout: include/uapi/linux/netfilter/nfnetlink_queue.h. A packet waits in the kernel until it gets a verdict.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from enum import IntEnum
from functools import cache

from ackward.kernel.netlink import attribute

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 3 << 8  # NFNL_SUBSYS_QUEUE, include/uapi/linux/netfilter/nfnetlink.h
_PACKET, _VERDICT, _CONFIG = 0, 1, 2  # NFQNL_MSG_*
_CFG_COMMAND, _CFG_PARAMETERS, _CFG_LENGTH, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5  # NFQA_CFG_*
_GSO = 1 << 2  # NFQA_CFG_F_GSO
_PACKET_HEADER, _VERDICT_HEADER, _INTERFACE, _PAYLOAD = 1, 2, 5, 10  # NFQA_*; 5: IFINDEX_INDEV
_BIND, _COPY_PACKET = 1, 2
_SOL_NETLINK, _NO_ENOBUFS, _SO_RCVBUFFORCE = 270, 5, 33
#: struct nfgenmsg after struct nlmsghdr: that is where a message's attributes begin.
_ATTRIBUTES = 20
_RECEIVE_BUFFER = 32 << 20


class Verdict(IntEnum):
    """What becomes of a packet: NF_DROP, NF_ACCEPT (include/uapi/linux/netfilter.h)."""

    DROP = 0
    ACCEPT = 1


def _message(kind: int, queue: int, flags: int, payload: bytes) -> bytes:
    body = struct.pack("!BBH", 0, 0, queue) + payload
    return struct.pack("=IHHII", 16 + len(body), _SUBSYSTEM | kind, flags, 0, 0) + body


@cache
def _verdict_head(queue: int) -> bytes:
    """A verdict's message up to what differs from packet to packet: there may be 100,000 a second."""
    attribute_ = attribute(_VERDICT_HEADER, bytes(8))
    return _message(_VERDICT, queue, 0x1, attribute_)[:-8]


def verdict(queue: int, identity: int, what: Verdict) -> bytes:
    """The message that gives one packet its verdict; several may be joined and are carried out in order."""
    return _verdict_head(queue) + struct.pack("!II", what, identity)


class Queues:
    """The netlink socket to packet queues of this namespace, which nobody else may have bound.

    ``copied`` bytes of each packet are given to us; beyond ``longest`` waiting packets the kernel drops. ``whole``:
    offloaded packets are not split before they get here. Raises OSError.
    """

    def __init__(self, numbers: tuple[int, ...], *, copied: int, longest: int, whole: bool = False) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        try:
            self.socket.bind((0, 0))
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            self.socket.setsockopt(_SOL_NETLINK, _NO_ENOBUFS, 1)
            for number in numbers:
                self._configure(number, attribute(_CFG_COMMAND, struct.pack("!BxH", _BIND, socket.AF_UNSPEC)))
                self._configure(number, attribute(_CFG_PARAMETERS, struct.pack("!IB", copied, _COPY_PACKET)))
                self._configure(number, attribute(_CFG_LENGTH, struct.pack("!I", longest)))
                if whole:
                    flags = ((_CFG_MASK, _GSO), (_CFG_FLAGS, _GSO))
                    self._configure(
                        number, b"".join(attribute(kind, struct.pack("!I", flag)) for kind, flag in flags)
                    )
        except BaseException:
            self.socket.close()
            raise
        self.socket.settimeout(0)

    def _configure(self, queue: int, attribute: bytes) -> None:
        self.socket.send(_message(_CONFIG, queue, 0x5, attribute))  # NLM_F_REQUEST | NLM_F_ACK
        (error,) = struct.unpack_from("=i", self.socket.recv(65536), 16)
        if error:
            raise OSError(-error, f"NFQUEUE {queue}: {os.strerror(-error)}")

    def arrived(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Everything that waits: (queue, packet id, number of the interface it came in at, its first bytes)."""
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

    def close(self) -> None:
        """Let go of the queues: packets that wait are dropped."""
        self.socket.close()


def _packet(message: bytes) -> tuple[int, int, int, bytes]:
    (queue,) = struct.unpack_from("!H", message, 18)
    offset, identity, interface, payload = _ATTRIBUTES, 0, 0, b""
    while offset < len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if kind & 0x7FFF == _PACKET_HEADER:
            (identity,) = struct.unpack_from("!I", message, offset + 4)
        elif kind & 0x7FFF == _INTERFACE:
            (interface,) = struct.unpack_from("!I", message, offset + 4)
        elif kind & 0x7FFF == _PAYLOAD:
            payload = message[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return queue, identity, interface, payload
