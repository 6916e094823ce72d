"""Raw netlink: send one request, read its answer, lose no byte.

Routes that we change must keep every attribute, also those that no library knows. pyroute2 decodes and
re-encodes them and loses some (``metrics={'attrs': ...}`` silently), and importing its IPRoute costs 235 ms;
here bytes go back as they came. Layout: RFC 3549 and include/uapi/linux/netlink.h. Standard library only.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ackward.errors import PrivilegeMissing, Unavailable
from ackward.kernel.namespaces import Namespace, call_inside

# include/uapi/linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_ACK_TLVS = 0x1, 0x4, 0x10, 0x200
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 1, 10, 11
_NLA_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

# Above the 32 KiB that netlink_dump() puts into one datagram at most.
_RECEIVE = 1 << 17

# A dump that changed underneath (NLM_F_DUMP_INTR) is taken again; a table that never rests is an error.
_DUMP_ATTEMPTS = 20


@dataclass(frozen=True)
class Message:
    """One netlink message without its header."""

    type: int
    body: bytes


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in ``data`` as (type, value), in order; stops at a length that makes no sense."""
    at, last, size, unpack = 0, len(data) - _ATTRIBUTE.size, _ATTRIBUTE.size, _ATTRIBUTE.unpack_from
    while at <= last:
        length, kind = unpack(data, at)
        if length < size:
            return
        yield kind & _NLA_TYPE_MASK, data[at + size : at + length]
        at += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One encoded attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(len(value) + _ATTRIBUTE.size, kind) + value + b"\0" * (-len(value) % 4)


def u32(value: int) -> bytes:
    """An unsigned 32-bit value in host order."""
    return struct.pack("=I", value)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


class Netlink:
    """A netlink socket inside ``namespace``, subscribed to the multicast ``groups`` (RTNLGRP_*) of its protocol."""

    def __init__(
        self, namespace: Namespace, groups: Iterable[int] = (), protocol: int = socket.NETLINK_ROUTE
    ) -> None:
        self.namespace = namespace
        self._sequence = 0
        self._socket = call_inside(namespace, socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._socket.fileno()

    def cookie(self) -> int | None:
        """The namespace's cookie, unique for the whole boot; none where the kernel has none (before 5.14)."""
        try:
            return int.from_bytes(
                self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder
            )
        except OSError as error:
            if error.errno == errno.ENOPROTOOPT:
                return None
            raise

    def dump(self, kind: int, body: bytes) -> list[Message]:
        """All objects that a dump request gives, taken again while the kernel says that they changed."""
        for _ in range(_DUMP_ATTEMPTS):
            answer, interrupted = self._exchange(kind, NLM_F_DUMP, body, f"to list objects (type {kind})")
            if not interrupted:
                return answer
        raise Unavailable(
            f"the tables of {self.namespace.name} change faster than they can be read",
            consequence="nothing was done",
            next_step="try again when routing has settled",
        )

    def change(self, kind: int, flags: int, body: bytes, *, doing: str, accept: Iterable[int] = ()) -> int:
        """Make one change and wait for the kernel's word: 0, or the errno if it is one of ``accept``.

        ``doing`` completes "the kernel refused ...". Raises :class:`PrivilegeMissing` or
        :class:`Unavailable`.
        """
        try:
            self._exchange(kind, flags | NLM_F_ACK, body, doing)
        except Unavailable as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in set(accept):
                return cause.errno or 0
            raise
        return 0

    def pending(self) -> list[Message]:
        """The notifications that wait, without blocking. Raises OSError ENOBUFS when some were lost."""
        found: list[Message] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            found.extend(Message(kind, body) for kind, _, _, body in _split(data))

    def _exchange(self, kind: int, flags: int, body: bytes, doing: str) -> tuple[list[Message], bool]:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
        self._socket.send(header + body)
        answer: list[Message] = []
        interrupted = False
        while True:
            for kind_, flags_, sequence, payload in _split(self._socket.recv(_RECEIVE)):
                if sequence != self._sequence:
                    continue
                interrupted |= bool(flags_ & NLM_F_DUMP_INTR)
                if kind_ in (_NLMSG_ERROR, _NLMSG_DONE):
                    _require_success(kind_, flags_, payload, doing)
                    return answer, interrupted
                answer.append(Message(kind_, payload))


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += _aligned(length)


def _require_success(ending: int, flags: int, payload: bytes, doing: str) -> None:
    """Raise the refusal that ends an answer.

    A dump that fails, at once or half-way, ends with NLMSG_DONE and an errno in it (netlink_dump_done()).
    """
    number = -struct.unpack_from("=i", payload)[0]
    # A family that this kernel does not have has nothing to list.
    if number == 0 or (ending == _NLMSG_DONE and number == errno.EAFNOSUPPORT):
        return
    raise _refusal(number, _explanation(ending, flags, payload), doing) from OSError(
        number, os.strerror(number)
    )


def _explanation(ending: int, flags: int, payload: bytes) -> str:
    """The kernel's own words (extended ACK), after struct nlmsgerr, which NETLINK_CAP_ACK cut short; or an errno."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    begin = 4 + (_HEADER.size if ending == _NLMSG_ERROR else 0)
    for kind, value in attributes(payload[begin:]):
        if kind == _NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode(errors="replace")
    return ""


def _refusal(number: int, explanation: str, doing: str) -> Unavailable:
    words = os.strerror(number) + (f": {explanation.rstrip('.')}" if explanation else "")
    if number in (errno.EPERM, errno.EACCES):
        return PrivilegeMissing.for_this_command(
            f"the kernel does not allow {doing} (CAP_NET_ADMIN)", consequence="this change was not made"
        )
    return Unavailable(
        f"the kernel refused {doing} ({words})",
        consequence="this change was not made",
        next_step="look at what is there with `ip route show table all` and `ip rule`, and run the command again",
    )
