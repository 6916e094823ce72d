"""A TCP socket of one's own: where it is, which way it goes, and the options that decide when it acknowledges."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, TypeAlias

from ackward.errors import PrivilegeMissing, Unavailable, UsageError
from ackward.kernel.namespaces import Namespace, current, in_sight
from ackward.kernel.netlink import Netlink
from ackward.kernel.route_lookup import RouteLookup
from ackward.kernel.settings import ticks_per_second
from ackward.kernel.sock_diag import SocketRecord, TcpState
from ackward.model.tcp_constants import IPPROTO_MPTCP

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket

    TcpSocket: TypeAlias = socket.socket | TransportSocket

# include/uapi/linux/tcp.h
TCP_QUICKACK = 12
#: icsk_delack_max, since about 6.15. do_tcp_setsockopt() rounds it up to jiffies and takes 2 (TCP_TIMEOUT_MIN) up to
#: TCP_DELACK_MAX; it asks for no privilege.
TCP_DELACK_MAX_US = 46
_LEAST_JIFFIES = 2
#: The longest tick that Linux is built with (HZ=100), for kernels that do not tell theirs.
_LONGEST_TICK_US = 10_000

# include/uapi/asm-generic/socket.h
_SO_BINDTOIFINDEX, _SO_NETNS_COOKIE = 62, 71


def require_tcp(sock: TcpSocket) -> None:
    """Raise :class:`UsageError` unless ``sock`` is an open TCP socket."""
    unchanged = "nothing was changed"
    if sock.fileno() < 0:
        raise UsageError(
            "the socket is closed", consequence=unchanged, next_step="pin it before it is closed"
        )
    protocol = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
    if protocol == IPPROTO_MPTCP:
        raise UsageError(
            "the socket is MPTCP, which refuses TCP_QUICKACK",
            consequence=unchanged,
            next_step="open it with IPPROTO_TCP, or use `ackward fix quickack --port` for its subflows",
        )
    if protocol != socket.IPPROTO_TCP or sock.family not in (socket.AF_INET, socket.AF_INET6):
        family = getattr(sock.family, "name", sock.family)
        kind = getattr(sock.type, "name", sock.type)
        raise UsageError(
            f"the socket is no TCP socket ({family}, {kind})",
            consequence=f"it has no ACKs; {unchanged}",
            next_step="give a TCP socket of IPv4 or IPv6",
        )


def namespace_of(sock: TcpSocket) -> Namespace:
    """The network namespace that the socket was made in; raises :class:`Unavailable` if it is not in sight."""
    here = current()
    try:
        cookie = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return here  # before Linux 5.14 nothing tells a socket that came from elsewhere
    if _cookie(here) == cookie:
        return here
    for namespace in in_sight():
        with contextlib.suppress(OSError, PrivilegeMissing):  # it is being removed, or may not be entered
            if _cookie(namespace) == cookie:
                return namespace
    raise Unavailable(
        "the socket is of another network namespace, which is not in sight",
        consequence="its routes cannot be read or changed",
        next_step="pin it in a process of that namespace",
    )


def _cookie(namespace: Namespace) -> int | None:
    with Netlink(namespace) as netlink:
        return netlink.cookie()


def _plain(address: str) -> str:
    """Without a zone, and IPv4 for an IPv4-mapped address."""
    bare = ip_address(address.partition("%")[0])
    mapped = bare.ipv4_mapped if isinstance(bare, IPv6Address) else None
    return str(mapped or bare)


def connection(sock: TcpSocket) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """The local and the remote end; none while the socket has no peer."""
    try:
        remote = sock.getpeername()
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.EINVAL):
            return None
        raise
    local = sock.getsockname()
    return (_plain(local[0]), local[1]), (_plain(remote[0]), remote[1])


def stays_inside(sock: TcpSocket) -> bool:
    """Whether the connection visibly ends on this host: such segments take the table local, whatever rules say."""
    ends = connection(sock)
    return ends is not None and (ends[0][0] == ends[1][0] or ip_address(ends[1][0]).is_loopback)


def route_quickack(sock: TcpSocket, namespace: Namespace) -> bool:
    """Whether the route of the socket's connection, by its mark and all rules, acknowledges at once."""
    ends = connection(sock)
    if ends is None:
        return False
    family = ip_address(ends[1][0]).version
    status = os.fstat(sock.fileno())
    record = SocketRecord(
        family=family,
        state=TcpState.ESTABLISHED,
        timer=0,
        retransmits=0,
        expires_ms=0,
        local=ends[0],
        remote=ends[1],
        key=(status.st_ino, "", ""),
        interface=_interface(sock),
        cookie=None,
        read_queue=0,
        write_queue=0,
        uid=status.st_uid,
        inode=status.st_ino,
        info={},
        traffic_class=_traffic_class(sock, family),
        mark=mark(sock),
    )
    with RouteLookup(namespace) as lookup:
        return bool(lookup.quickack(record))


def _interface(sock: TcpSocket) -> int:
    try:
        bound = int(sock.getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:  # before Linux 5.0
            raise
        bound = 0
    if bound:
        return bound
    with contextlib.suppress(OSError):  # the peer has gone in between
        remote = sock.getpeername()
        return int(remote[3]) if len(remote) > 3 else 0  # the zone of a link-local peer
    return 0


def _traffic_class(sock: TcpSocket, family: int) -> int:
    if family == 4:
        return int(sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS))
    return max(0, int(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS)))


def acknowledge_now(sock: TcpSocket) -> None:
    """Send the ACK that waits, if one does, and leave pingpong mode until the program answers again.

    __tcp_sock_set_quickack(). It gives no more quick ACKs than the kernel has granted.
    """
    sock.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, 1)


def delack_max_us(sock: TcpSocket) -> int | None:
    """The socket's longest ACK delay in microseconds; none where the kernel has no such option."""
    try:
        return int(sock.getsockopt(socket.IPPROTO_TCP, TCP_DELACK_MAX_US))
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return None
        raise


def set_delack_max_us(sock: TcpSocket, value: int) -> None:
    """Set the socket's longest ACK delay, in microseconds."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_DELACK_MAX_US, value)


def bound_delay(sock: TcpSocket) -> int:
    """Give the socket the shortest ACK delay that the kernel takes; how late an ACK may be now, in nanoseconds.

    That is one tick more than what was set: a timer never fires early (calc_index() in kernel/time/timer.c rounds up).
    Raises :class:`Unavailable` where the kernel has no such option.
    """
    hz = ticks_per_second()
    tick = _LONGEST_TICK_US if hz is None else 1_000_000 // hz
    try:
        # Just above one tick is rounded up to two.
        set_delack_max_us(sock, (_LEAST_JIFFIES - 1) * tick + 1)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL):
            raise
        raise Unavailable(
            "this kernel has no TCP_DELACK_MAX_US (about Linux 6.15)",
            consequence="the delay of ACKs cannot be bounded by the program",
            next_step="leave out means='delack-max': `ackward.pin_quickack` takes the next best",
        ) from error
    set_us = delack_max_us(sock)
    assert set_us is not None
    return (set_us + tick) * 1000


def mark(sock: TcpSocket) -> int:
    """The mark that the socket's segments carry (SO_MARK)."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF


def set_mark_bit(sock: TcpSocket, bit: int, *, on: bool) -> None:
    """Set or clear one bit of the mark and leave the others; the route is looked up anew (sk_dst_reset()).

    Raises :class:`PrivilegeMissing`.
    """
    now = mark(sock)
    wanted = now | bit if on else now & ~bit
    if wanted == now:
        return
    try:
        # As a C int: the highest bit makes it negative.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, wanted - (1 << 32) if wanted >> 31 else wanted)
    except PermissionError as error:
        raise PrivilegeMissing(
            "marking a socket needs CAP_NET_ADMIN (SO_MARK)",
            consequence="the socket's mark is as it was",
            next_step="give the program CAP_NET_ADMIN, or ask for means='delack-max'",
        ) from error
