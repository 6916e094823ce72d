"""Ways for two programs to be connected: plain TCP, a bare sockmap, and the bypass itself."""

from __future__ import annotations

import ctypes
import enum
import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ackward.errors import Unavailable
from ackward.kernel.bpf_syscall import AttachType
from ackward.kernel.libbpf import Map, Object, library
from ackward.kernel.namespaces import Namespace, call_inside
from ackward.model.scopes import BypassScope
from ackward.model.tcp_constants import IPPROTO_MPTCP
from ackward.remedies.bypass import engine
from ackward.remedies.bypass.engine import Engine
from ackward.remedies.bypass.rules import Rules
from ackward.remedies.transaction import identify

_BARE = Path(__file__).with_name("bare.bpf.o")
#: Where the programs of the self-test meet, in a namespace of their own.
PORT = 7400
_FIRST, _ACCEPTED = b"first bytes", 2.0


class Opening(enum.Enum):
    """What happens before the dialogue begins; whatever was written then, the server's end has read."""

    PLAIN = enum.auto()
    #: The client writes while the connection waits to be accepted.
    UNACCEPTED = enum.auto()
    #: The first bytes come with the SYN (TCP Fast Open).
    FAST_OPEN = enum.auto()
    #: The server's end is there only when the first bytes are (TCP_DEFER_ACCEPT).
    DEFERRED = enum.auto()
    #: The client's socket had another connection before, on which it left bytes unread (connect(AF_UNSPEC)).
    RECONNECTED = enum.auto()


@dataclass(frozen=True)
class Kind:
    """What kind of connection: the address that is connected to, whether it is MPTCP, and how it opens."""

    address: str = "127.0.0.1"
    mptcp: bool = False
    opening: Opening = Opening.PLAIN

    @property
    def family(self) -> socket.AddressFamily:
        """Of the socket: an IPv4-mapped address is IPv6's."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


class Way(Protocol):
    """How connections are made, and how much of what was written has gone past the stack."""

    def pair(self, kind: Kind) -> tuple[socket.socket, socket.socket]:
        """A new connection: who connected, who accepted."""
        ...

    def redirected(self) -> int:
        """Messages that went past the stack so far."""
        ...


@dataclass
class PlainTcp:
    """TCP as it is, in a namespace."""

    host: Namespace

    def pair(self, kind: Kind) -> tuple[socket.socket, socket.socket]:
        """A new connection."""
        return call_inside(self.host, _connect, kind)

    def redirected(self) -> int:
        """None ever."""
        return 0


def _connect(kind: Kind) -> tuple[socket.socket, socket.socket]:
    protocol = IPPROTO_MPTCP if kind.mptcp else socket.IPPROTO_TCP
    with socket.socket(kind.family, socket.SOCK_STREAM, protocol) as listener, ExitStack() as stack:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((kind.address, PORT))
        if kind.opening is Opening.FAST_OPEN:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 1)
        if kind.opening is Opening.DEFERRED:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        listener.listen()
        # Nothing of ours may wait for ever, whatever becomes of the first bytes.
        listener.settimeout(_ACCEPTED)
        connecting = stack.enter_context(socket.socket(kind.family, socket.SOCK_STREAM, protocol))
        address = (kind.address, PORT)
        if kind.opening is Opening.FAST_OPEN:
            connecting.sendto(_FIRST, socket.MSG_FASTOPEN, address)
        else:
            connecting.connect(address)
        if kind.opening is Opening.RECONNECTED:
            with listener.accept()[0] as before:
                before.sendall(_FIRST)
                _disconnect(connecting)
            connecting.connect(address)
        if kind.opening in (Opening.UNACCEPTED, Opening.DEFERRED):
            connecting.sendall(_FIRST)
        accepted = stack.enter_context(listener.accept()[0])
        if kind.opening in (Opening.UNACCEPTED, Opening.DEFERRED, Opening.FAST_OPEN):
            accepted.settimeout(_ACCEPTED)
            read = accepted.recv(len(_FIRST), socket.MSG_WAITALL)
            if read != _FIRST:
                raise OSError(errno.EIO, f"of the first {len(_FIRST)} bytes {len(read)} came")
        for end in (connecting, accepted):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stack.pop_all()
    return connecting, accepted


def _disconnect(connected: socket.socket) -> None:
    """connect(AF_UNSPEC): the connection is reset and the socket is as new."""
    unspecified = ctypes.create_string_buffer(16)  # AF_UNSPEC is 0
    if ctypes.CDLL(None, use_errno=True).connect(connected.fileno(), unspecified, len(unspecified)) != 0:
        raise OSError(ctypes.get_errno(), "connect(AF_UNSPEC)")


@dataclass
class Bare:
    """Both ends in a sockmap from the first byte on, and nothing else done."""

    tcp: PlainTcp
    programs: Object

    @classmethod
    @contextmanager
    def loaded(cls, host: Namespace) -> Iterator[Bare]:
        """The maps and their program in the kernel, for as long as it lasts."""
        with Object(_BARE, purpose="the bypass cannot be tried") as programs:
            programs.load()
            outcome = library().bpf_prog_attach(
                programs.program_fd("redirect"), programs.map("senders").fd, AttachType.SK_MSG_VERDICT, 0
            )
            if outcome != 0:
                raise Unavailable(
                    "this kernel attaches no program to a sockmap (sk_msg)",
                    consequence="there is no bypass here",
                    next_step="a kernel with CONFIG_BPF_STREAM_PARSER and CONFIG_NET_SOCK_MSG",
                )
            yield cls(PlainTcp(host), programs)

    def pair(self, kind: Kind) -> tuple[socket.socket, socket.socket]:
        """A new connection, joined. Raises OSError where the kernel takes no such socket (MPTCP)."""
        ends = self.tcp.pair(kind)
        try:
            for name in ("receivers", "senders"):
                for end in ends:
                    self._join(self.programs.map(name), end)
        except OSError:
            for end in ends:
                end.close()
            raise
        return ends

    @staticmethod
    def _join(sockets: Map, end: socket.socket) -> None:
        key = struct.pack("=II", end.getsockname()[1], end.getpeername()[1])
        sockets.put(key, struct.pack("=Q", end.fileno()))

    def redirected(self) -> int:
        """Messages that the program sent to the other end."""
        (number,) = struct.unpack_from("=Q", self.programs.map(".bss").get(bytes(4)) or bytes(8))
        return int(number)


@dataclass
class Joined:
    """Connections that the bypass joins by itself, in a namespace that it is told of."""

    tcp: PlainTcp
    engine: Engine

    @classmethod
    @contextmanager
    def attached(cls, host: Namespace) -> Iterator[Joined]:
        """The bypass for all connections of the namespace, for as long as it lasts."""
        cookie = identify(host).cookie
        if cookie is None:
            raise Unavailable(
                "this kernel gives network namespaces no cookie (SO_NETNS_COOKIE, Linux 5.14)",
                consequence="connections of one namespace cannot be told from another's: there is no bypass here",
                next_step="take a newer kernel",
            )
        with engine.attached(Rules(BypassScope(joins="all"), netns=cookie)) as attached:
            yield cls(PlainTcp(host), attached)

    def pair(self, kind: Kind) -> tuple[socket.socket, socket.socket]:
        """A new connection."""
        return self.tcp.pair(kind)

    def redirected(self) -> int:
        """Messages that the bypass took past the stack."""
        return self.engine.counters().redirected
