"""TCP sockets as NETLINK_SOCK_DIAG tells of them, to every user: struct inet_diag_msg and its attributes.

Kernels differ in how much of struct tcp_info they give: what is there is taken, what is not is absent. Marks are
told with CAP_NET_ADMIN only, cgroups since 5.7. Layout: include/uapi/linux/inet_diag.h and tcp.h.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from ackward.errors import Unavailable
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink, attributes

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20  # include/uapi/linux/netlink.h, sock_diag.h
# include/uapi/linux/inet_diag.h
_INFO, _CONG, _TOS, _TCLASS, _MARK, _CGROUP_ID = 2, 4, 5, 6, 15, 21
_EXTENSIONS = sum(1 << (extension - 1) for extension in (_INFO, _CONG, _TOS, _TCLASS))

#: struct inet_diag_req_v2 up to its struct inet_diag_sockid, which a dump of everything leaves empty.
_REQUEST = struct.Struct("=BBBxI48x")
#: family, state, timer, retrans; sockid: ports, addresses, interface, cookie; expires, queues, uid, inode.
_MESSAGE = struct.Struct("=4B4s16s16sIQ5I")
_PORTS = struct.Struct("!HH")
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291, section 2.5.5.2


class TcpState(enum.IntEnum):
    """include/net/tcp_states.h; the names are those of RFC 9293, section 3.3.2."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12
    BOUND_INACTIVE = 13


#: struct tcp_info in order. Kernels append to it; nothing was ever taken out or moved.
_TCP_INFO = """
B state ca_state retransmits probes backoff options wscale flags
I rto ato snd_mss rcv_mss unacked sacked lost retrans fackets
I last_data_sent last_ack_sent last_data_recv last_ack_recv
I pmtu rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd advmss reordering rcv_rtt rcv_space total_retrans
Q pacing_rate max_pacing_rate bytes_acked bytes_received
I segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out
Q delivery_rate busy_time rwnd_limited sndbuf_limited
I delivered delivered_ce
Q bytes_sent bytes_retrans
I dsack_dups reord_seen rcv_ooopack snd_wnd
"""
_CODES = [
    (code, names.split()) for code, _, names in (row.partition(" ") for row in _TCP_INFO.split("\n") if row)
]
_NAMES = [name for _, names in _CODES for name in names]
_FORMAT = "".join(code * len(names) for code, names in _CODES)
# Every field lies at a multiple of its size, so the kernel's struct has no holes (tests compare with getsockopt).
_WHOLE = struct.Struct("=" + _FORMAT)
_ENDS = [struct.calcsize("=" + _FORMAT[: count + 1]) for count in range(len(_NAMES))]


class SocketRecord(NamedTuple):
    """One socket as the kernel gave it, in the kernel's units.

    ``info`` holds the fields of struct tcp_info that this kernel has, by their names without ``tcpi_``: times in
    microseconds, but ``last_*`` in milliseconds. ``expires_ms`` belongs to ``timer``: 1 retransmission or probe of
    the tail, 2 keepalive, 3 TIME_WAIT, 4 zero-window probe, 0 none. ``key`` is how /proc/net/tcp writes the two
    ends. ``family`` is that on the wire: 4 for IPv4-mapped addresses. A tuple, because there may be very many.
    """

    family: int
    state: int
    timer: int
    retransmits: int
    expires_ms: int
    local: tuple[str, int]
    remote: tuple[str, int]
    key: tuple[int, str, str]
    interface: int
    cookie: int | None
    read_queue: int
    write_queue: int
    uid: int
    inode: int
    info: dict[str, int]
    congestion_control: str | None = None
    traffic_class: int = 0
    mark: int | None = None
    cgroup_id: int | None = None


def tcp_info(data: bytes) -> dict[str, int]:
    """The whole fields in ``data``, which may be shorter or longer than the struct known here."""
    present = bisect_right(_ENDS, len(data))
    values = _WHOLE.unpack_from(data if len(data) >= _WHOLE.size else data.ljust(_WHOLE.size, b"\0"))
    return dict(zip(_NAMES[:present], values, strict=False))


def parse(body: bytes) -> SocketRecord | None:
    """The socket in the body of a SOCK_DIAG_BY_FAMILY message; None if it is too short to name one."""
    if len(body) < _MESSAGE.size:
        return None
    (
        family, state, timer, retransmits, ports, source, destination, interface, cookie,
        expires, read_queue, write_queue, uid, inode,
    ) = _MESSAGE.unpack_from(body)  # fmt: skip
    sport, dport = _PORTS.unpack(ports)
    found = dict(attributes(body[_MESSAGE.size :]))
    tos = found.get(_TCLASS) or found.get(_TOS) or b"\0"
    version, local, remote = addresses(family, source, destination)
    return SocketRecord(
        family=version,
        state=state,
        timer=timer,
        retransmits=retransmits,
        expires_ms=expires,
        local=(local, sport),
        remote=(remote, dport),
        key=(inode, as_listed(family, source, sport), as_listed(family, destination, dport)),
        interface=interface,
        cookie=cookie,
        read_queue=read_queue,
        write_queue=write_queue,
        uid=uid,
        inode=inode,
        info=tcp_info(found[_INFO]) if _INFO in found else {},
        congestion_control=_text(found.get(_CONG)),
        traffic_class=tos[0],
        mark=_whole(found.get(_MARK), "=I"),
        cgroup_id=_whole(found.get(_CGROUP_ID), "=Q"),
    )


def addresses(family: int, source: bytes, destination: bytes) -> tuple[int, str, str]:
    """The version on the wire and both addresses in words, from 16 bytes each."""
    if family == socket.AF_INET:
        return 4, socket.inet_ntop(family, source[:4]), socket.inet_ntop(family, destination[:4])
    # A dual-stack listener has no peer: only a connection can be IPv4-mapped in full.
    if source.startswith(_MAPPED) and destination.startswith(_MAPPED):
        return addresses(socket.AF_INET, source[12:], destination[12:])
    return 6, socket.inet_ntop(socket.AF_INET6, source), socket.inet_ntop(socket.AF_INET6, destination)


def as_listed(family: int, address: bytes, port: int) -> str:
    """An end as /proc/net/tcp{,6} writes it: each 32-bit word as a number of this machine, the port as it is read."""
    words = struct.unpack_from("=I" if family == socket.AF_INET else "=4I", address)
    return f"{''.join(f'{word:08X}' for word in words)}:{port:04X}"


def _text(data: bytes | None) -> str | None:
    return data[:-1].decode(errors="replace") if data and data.endswith(b"\0") else None


def _whole(data: bytes | None, code: str) -> int | None:
    if data is None or len(data) < struct.calcsize(code):
        return None
    return int(struct.unpack_from(code, data)[0])


def dump(namespace: Namespace, states: Iterable[TcpState]) -> list[SocketRecord]:
    """The TCP sockets of ``namespace`` in these states, both families.

    Raises :class:`~ackward.errors.Unavailable` on a kernel without inet_diag.
    """
    mask = sum(1 << state for state in states)
    found: list[SocketRecord] = []
    with _open(namespace) as diagnostics:
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _REQUEST.pack(family, socket.IPPROTO_TCP, _EXTENSIONS, mask)
            messages = diagnostics.dump(SOCK_DIAG_BY_FAMILY, request)
            found.extend(record for message in messages if (record := parse(message.body)) is not None)
    return found


def _open(namespace: Namespace) -> Netlink:
    try:
        return Netlink(namespace, protocol=NETLINK_SOCK_DIAG)
    except OSError as error:
        if error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
            raise
        raise Unavailable(
            "this kernel has no sock_diag (CONFIG_INET_DIAG)",
            consequence="sockets tell little of themselves",
            next_step="load it with `modprobe tcp_diag`, or take a kernel that has it",
        ) from error
