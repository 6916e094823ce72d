"""The gateway's sockets: made, given their options and buffers, reset.

Plain ``_socket.socket`` objects: the class of :mod:`socket` makes an enum of each family and type that it is asked
for, which costs as much as the system call (accept: 3.9 against 1.6 us).
"""

from __future__ import annotations

import _socket
import errno
import socket
import struct
from contextlib import suppress
from functools import cache

from ackward.errors import PrivilegeMissing, Unavailable, UsageError
from ackward.gateway.settings import Address, Limits, PeerSettings
from ackward.model.tcp_constants import IPPROTO_MPTCP

Socket = _socket.socket

# include/uapi/asm-generic/socket.h, include/uapi/linux/in.h, in6.h
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_USUAL_LINGER = struct.pack("ii", 0, 0)

_IP_MTU_DISCOVER, _IP_PMTUDISC_DONT = 10, 0

BACKLOG = 4096
_ESTABLISHED = 1  # TCP_ESTABLISHED, include/net/tcp_states.h
_TCP_FASTOPEN_CONNECT = 30  # include/uapi/linux/tcp.h
#: Legs whose SYN brought bytes and whose handshake is not done; beyond it bytes wait for the handshake.
_FAST_OPENS = 1024


def family_of(host: str) -> int:
    """AF_INET or AF_INET6."""
    return int(socket.AF_INET6 if ":" in host else socket.AF_INET)


@cache
def _may_force() -> bool:
    """Whether buffers beyond net.core.rmem_max and wmem_max may be had (CAP_NET_ADMIN)."""
    with socket.socket() as trial:
        try:
            trial.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4096)
        except PermissionError:
            return False
    return True


def set_receive_buffer(sock: Socket, size: int) -> None:
    """Bound what the kernel holds of what came, to ``size`` bytes with its own overhead."""
    # The kernel doubles what it is told (sock_setsockopt()).
    option = _SO_RCVBUFFORCE if _may_force() else socket.SO_RCVBUF
    sock.setsockopt(socket.SOL_SOCKET, option, size // 2)


def set_send_buffer(sock: Socket, size: int) -> None:
    """The same for what is to be sent, or was sent and is not acknowledged."""
    option = _SO_SNDBUFFORCE if _may_force() else socket.SO_SNDBUF
    sock.setsockopt(socket.SOL_SOCKET, option, size // 2)


def set_options(sock: Socket, limits: Limits) -> None:
    """What a listener has, so that the connections that it accepts inherit all of it."""
    set_urgent_options(sock)
    set_keepalive(sock, limits)


def set_urgent_options(sock: Socket) -> None:
    """What a connection cannot be without from its first byte on.

    Closing is a reset, until :func:`end_in_order`: the kernel closes the sockets of a process that was killed, and a
    FIN would let half an answer look like all of it.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    if sock.proto != IPPROTO_MPTCP:  # it knows no urgent data, and refuses
        # Urgent data is data (RFC 6093): without this the byte would be taken out of the stream.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def set_keepalive(sock: Socket, limits: Limits) -> None:
    """Notice a peer that has vanished. Short connections end before that matters: they are spared these calls."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.keepalive)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limits.keepalive_interval)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, limits.keepalive_probes)


def set_congestion(sock: Socket, name: str) -> None:
    """Choose the congestion control; raises :class:`Unavailable` if this host does not allow it."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    except OSError as error:
        raise Unavailable(
            f"the congestion control {name!r} cannot be used ({error.strerror})",
            consequence="the gateway was not started",
            next_step="name one of `sysctl net.ipv4.tcp_allowed_congestion_control`, or extend that list",
        ) from error


def listening(
    address: Address,
    limits: Limits,
    *,
    buffer: int,
    congestion: str = "",
    mptcp: bool = False,
    mss: int | None = None,
    transparent: bool = False,
    alone: bool = False,
    fast_open: bool = False,
) -> Socket:
    """A listener that shares its port with those of the other workers, unless it is to be ``alone``.

    Raises an error that names the cause.
    """
    host, port = address
    try:
        sock = _made(host, mptcp=mptcp)
    except OSError as error:
        raise _not_listening(error, address) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not alone:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        set_options(sock, limits)
        set_receive_buffer(sock, buffer)
        set_send_buffer(sock, buffer)
        if congestion:
            set_congestion(sock, congestion)
        if mss:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        if transparent:
            be_transparent(sock, family_of(host))
        sock.bind((host, port))
        if fast_open and not mptcp:
            # Without effect unless net.ipv4.tcp_fastopen allows it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, _FAST_OPENS)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _not_listening(error, address) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _made(host: str, *, mptcp: bool) -> Socket:
    """Raises OSError, in words where the host lacks MPTCP."""
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        return Socket(family_of(host), kind, IPPROTO_MPTCP if mptcp else 0)
    except OSError as error:
        if not mptcp:
            raise
        raise OSError(error.errno, "this host has no MPTCP, or net.mptcp.enabled=0") from error


def _not_listening(error: OSError, address: Address) -> Exception:
    where = words(address)
    started = "the gateway was not started"
    if error.errno == errno.EADDRINUSE:
        return Unavailable(
            f"{where} is in use by another program",
            consequence=started,
            next_step=f"see whose it is: `ss -tlnp 'sport = :{address[1]}'`",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"{where} is no address of this host",
            consequence=started,
            next_step="name one that `ip address` shows",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PrivilegeMissing.for_this_command(f"{where} may not be listened on", consequence=started)
    return Unavailable(
        f"{where} cannot be listened on ({error.strerror or error})",
        consequence=started,
        next_step="choose another address, or leave out what this host lacks: docs/gateway.md lists every field",
    )


def be_transparent(sock: Socket, family: int) -> None:
    """Let it have addresses that are not this host's (CAP_NET_ADMIN or CAP_NET_RAW)."""
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)


def is_own(host: str) -> bool:
    """Whether it is one of this host's addresses: others cannot be bound to without being transparent."""
    with socket.socket(family_of(host), socket.SOCK_DGRAM) as trial:
        try:
            trial.bind((host, 0))
        except OSError:
            return False
    return True


def connecting(
    address: Address, *, buffer: int, source: Address | None = None, leg: PeerSettings | None = None
) -> Socket:
    """A socket on its way to ``address``, from ``source`` if that is given; ``leg``: it is one. Raises OSError.

    Its send buffer is the kernel's to size (net.ipv4.tcp_wmem) unless it is a leg's: what waits for a server waits in
    the near side's receive buffer, which is bounded. Where both hosts allow it a leg's SYN waits for the first bytes
    and takes them along (RFC 7413), from the second leg on. The leg protocol bears what may happen to them: a JOIN
    that comes twice is refused.
    """
    sock = _made(address[0], mptcp=leg is not None and leg.mptcp)
    try:
        set_urgent_options(sock)
        set_receive_buffer(sock, buffer)
        if leg is not None:
            set_send_buffer(sock, buffer)
            if leg.congestion:
                set_congestion(sock, leg.congestion)
            if leg.mss:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, leg.mss)
        if source is not None:
            be_transparent(sock, family_of(address[0]))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(source)
        if leg is not None and not leg.mptcp:
            with suppress(OSError):  # net.ipv4.tcp_fastopen forbids it: the SYN goes alone
                sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)
        with suppress(BlockingIOError):  # it is on its way
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def end_in_order(sock: Socket) -> None:
    """Let closing send what waits, and a FIN, instead of a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _USUAL_LINGER)


def let_fragment(sock: Socket) -> bool:
    """Let routers fragment what it sends from now on, also what it sends again; false for IPv6, where none does."""
    if sock.family != socket.AF_INET:
        return False
    try:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
    except OSError:
        return False  # MPTCP has no such option
    return True


def error_of(sock: Socket) -> int:
    """The errno that waits at the socket, 0 for none."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def is_established(sock: Socket) -> bool:
    """Whether neither end has ended or reset it, as the kernel knows by now."""
    state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]  # tcpi_state, include/uapi/linux/tcp.h
    return state == _ESTABLISHED


def words(address: Address) -> str:
    """An address as people write it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
