"""Pin a socket of one's own to quick ACKs: TCP_QUICKACK that stays, without a patched kernel.

The strongest means that privileges and kernel allow is taken, and what it takes is said:

``route``       the route acknowledges at once already (RTAX_QUICKACK); nothing is changed
``mark``        one bit of the socket's mark, a rule for that bit, and a table that mirrors main with quickack 1
``delack-max``  TCP_DELACK_MAX_US: the kernel's shortest delay, two ticks that may take three
``rearm``       TCP_QUICKACK again after each read: an ACK waits for as long as the program does not read

A mark rather than a rule for the socket's two ports: one rule serves any number of sockets (the kernel goes through
rules one by one), works before connect(), is inherited by accepted sockets, and dies with the socket.
"""

from __future__ import annotations

import enum
import itertools
import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from ackward import remedies
from ackward.errors import AckwardError, Refused, Unavailable, UsageError
from ackward.kernel import own_socket
from ackward.kernel.namespaces import Namespace
from ackward.model.pins import MarkRuleAdded
from ackward.model.plan import Refusal
from ackward.model.tcp_constants import DELACK_MAX_NS
from ackward.remedies.receipts import Receipts

if TYPE_CHECKING:
    import asyncio

    from ackward.kernel.own_socket import TcpSocket


class Means(enum.StrEnum):
    """How a socket is pinned, strongest first."""

    ROUTE = "route"
    MARK = "mark"
    DELACK_MAX = "delack-max"
    REARM = "rearm"


@dataclass
class Pinned:
    """A pinned socket: how, and how late its ACKs may still be.

    ``delay_ns`` is the upper bound; 0 means at once. ``why`` says in words what was taken and what stronger means
    lacked. ``inherits``: sockets accepted from this one are pinned too. ``receipt`` names what was changed on the host
    (None: nothing). :meth:`close`, or the end of a ``with`` block, gives the socket back as it was.
    """

    means: Means
    delay_ns: int
    why: str
    inherits: bool
    receipt: str | None = None
    sock: TcpSocket = field(kw_only=True, repr=False)
    _taken: ExitStack = field(kw_only=True, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unpin: the socket delays its ACKs as before. The socket stays open; a closed one needs nothing."""
        self._taken.close()

    def rearm(self) -> None:
        """Let the ACK that waits go now: call it after a read. Does nothing where ACKs go at once anyway."""
        if self.delay_ns and self.sock.fileno() >= 0:
            own_socket.acknowledge_now(self.sock)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """``sock.recv``, and :meth:`rearm`."""
        data = self._plain().recv(size, flags)
        self.rearm()
        return data

    def recv_into(self, buffer: bytearray | memoryview, size: int = 0, flags: int = 0) -> int:
        """``sock.recv_into``, and :meth:`rearm`."""
        count = self._plain().recv_into(buffer, size, flags)
        self.rearm()
        return count

    def rearm_after_reads(self, transport: asyncio.Transport) -> None:
        """Do :meth:`rearm` whenever asyncio has read from the transport of this socket.

        Raises :class:`UsageError` for a protocol that gives asyncio its own buffers.
        """
        if not self.delay_ns:
            return
        from ackward.loop.rearming import rearming

        transport.set_protocol(rearming(transport.get_protocol(), self.rearm))

    def _plain(self) -> socket.socket:
        if isinstance(self.sock, socket.socket):
            return self.sock
        raise UsageError(
            "asyncio reads this socket itself",
            consequence="nothing was read",
            next_step="use rearm_after_reads(transport), or rearm() after each read",
        )


class _Marking(NamedTuple):
    bit: int
    receipt: str
    notes: tuple[str, ...]


#: One rule and one table for all sockets that a process pins in a namespace, made at the first. A forked child makes
#: its own: its parent's end with the parent.
_MARKINGS: dict[tuple[int, int], _Marking] = {}
_ONE_AT_A_TIME = threading.Lock()
_ATTEMPTS = 5


def pin_quickack(sock: TcpSocket, *, means: Means | str | None = None, change_host: bool = True) -> Pinned:
    """Make the kernel acknowledge at once on this TCP socket, for good, as far as it can be had.

    Before or after connect(), on a listening socket, IPv4, IPv6 or IPv4-mapped; also asyncio's
    ``transport.get_extra_info("socket")``. ``means`` demands exactly one means; without it the strongest that works is
    taken. ``change_host=False`` leaves out the one means that changes more than this socket (``mark``, which needs
    CAP_NET_ADMIN): `ackward status` shows what it changed, `ackward undo` takes it back, and it goes when this process
    ends. The first ``mark`` of a process starts two small processes and blocks for that moment: do it before an event
    loop serves.

    Raises :class:`UsageError` for what is no open TCP socket, and :class:`~ackward.errors.Unavailable`,
    :class:`~ackward.errors.PrivilegeMissing` or :class:`~ackward.errors.Refused` when the means demanded cannot be had.
    """
    own_socket.require_tcp(sock)
    wanted = _wanted(means, change_host=change_host)
    lacking: list[str] = []
    for one in wanted:
        try:
            pinned = _TAKE[one](sock)
        except AckwardError as error:
            if means is not None:
                raise
            lacking.append(f"not by {one.value}: {error.missing}")
        except (
            OSError
        ) as error:  # no netlink here (seccomp, systemd's RestrictAddressFamilies), no descriptors left
            if means is not None:
                raise Unavailable(
                    f"the socket cannot be pinned by {one.value} ({error.strerror})",
                    consequence="nothing was changed",
                    next_step="leave means out: the strongest that works is taken",
                ) from error
            lacking.append(f"not by {one.value}: {error.strerror}")
        else:
            pinned.why = "; ".join([pinned.why, *lacking])
            if own_socket.connection(sock):
                own_socket.acknowledge_now(sock)  # one that waits already has a timer of the old length
            return pinned
    raise AssertionError("TCP_QUICKACK is older than any kernel that Python runs on")


def _wanted(means: Means | str | None, *, change_host: bool) -> list[Means]:
    if means is None:
        return [one for one in Means if change_host or one is not Means.MARK]
    try:
        one = Means(means)
    except ValueError as error:
        raise UsageError(
            f"there is no means {means!r}",
            consequence="nothing was changed",
            next_step=f"name one of: {', '.join(Means)}",
        ) from error
    if one is Means.MARK and not change_host:
        raise UsageError(
            "means='mark' changes the host's rules, and change_host=False forbids it",
            consequence="nothing was changed",
            next_step="leave out one of the two",
        )
    return [one]


def _by_route(sock: TcpSocket) -> Pinned:
    if not own_socket.connection(sock):
        raise Refused(
            "the socket has no peer yet, so it has no route",
            consequence="nothing was changed",
            next_step="connect it first",
        )
    namespace = own_socket.namespace_of(sock)
    ours = _MARKINGS.get((os.getpid(), namespace.inode))
    if ours and own_socket.mark(sock) & ours.bit:
        raise Refused(
            "its route has quickack by the mark that it got from an earlier pin",
            consequence="nothing was changed",
            next_step="close that pin first, or leave out means='route'",
        )
    if not own_socket.route_quickack(sock, namespace):
        raise Unavailable(
            "its route has no quickack",
            consequence="nothing was changed",
            next_step="`ackward fix quickack` would set it",
        )
    why = "the route of this connection acknowledges at once already"
    return Pinned(Means.ROUTE, 0, why, inherits=False, sock=sock, _taken=ExitStack())


def _by_mark(sock: TcpSocket) -> Pinned:
    if own_socket.stays_inside(sock):
        raise Refused(
            "the connection stays inside this host, by the table local, which no rule of ours comes before",
            consequence="nothing was changed",
            next_step="ask for means='delack-max'",
        )
    namespace = own_socket.namespace_of(sock)
    marking = _marking(namespace)
    with ExitStack() as taken:
        # Beneath the mark, where the kernel has it: for loopback connections of a listener, and after an undo by hand.
        bounded = _bound(sock, taken)
        if (
            not own_socket.mark(sock) & marking.bit
        ):  # else inherited, or pinned twice: whoever set it clears it
            own_socket.set_mark_bit(sock, marking.bit, on=True)
            taken.callback(_if_open, sock, lambda: own_socket.set_mark_bit(sock, marking.bit, on=False))
        if own_socket.connection(sock) and not own_socket.route_quickack(sock, namespace):
            raise Refused(
                "; ".join(["the connection's route does not come to our rule", *marking.notes]),
                consequence=f"the socket is as it was; the rule stays ({marking.receipt})",
                next_step="ask for means='delack-max'",
            )
        why = f"the socket's mark {marking.bit:#x} leads to a table with quickack ({marking.receipt})"
        if own_socket.connection(sock) is None:
            within = f"within {bounded / 1e6:g} ms" if bounded else "as the kernel likes"
            why += f"; connections that stay inside this host are acknowledged {within}"
            why += "".join(f"; {note}" for note in marking.notes)
        return Pinned(
            Means.MARK, 0, why, inherits=True, receipt=marking.receipt, sock=sock, _taken=taken.pop_all()
        )


def _by_delack_max(sock: TcpSocket) -> Pinned:
    with ExitStack() as taken:
        delay = _bound(sock, taken)
        if not delay:
            own_socket.bound_delay(sock)  # says what is missing
        why = f"TCP_DELACK_MAX_US: an ACK waits {delay / 1e6:g} ms at most"
        return Pinned(Means.DELACK_MAX, delay, why, inherits=True, sock=sock, _taken=taken.pop_all())


def _bound(sock: TcpSocket, taken: ExitStack) -> int:
    """Bound the delay and note how to take that back; 0 where the kernel has no such option."""
    before = own_socket.delack_max_us(sock)
    if before is None:
        return 0
    delay = own_socket.bound_delay(sock)
    ours = own_socket.delack_max_us(sock)

    def restore() -> None:
        if own_socket.delack_max_us(sock) == ours:  # else somebody set it since
            own_socket.set_delack_max_us(sock, before)

    taken.callback(_if_open, sock, restore)
    return delay


def _if_open(sock: TcpSocket, action: Callable[[], Any]) -> None:
    if sock.fileno() >= 0:
        action()


def _by_rearming(sock: TcpSocket) -> Pinned:
    why = (
        "TCP_QUICKACK again after each read through this object: an ACK goes when the program reads, "
        f"and waits {DELACK_MAX_NS / 1e6:g} ms at most if it does not"
    )
    return Pinned(Means.REARM, DELACK_MAX_NS, why, inherits=False, sock=sock, _taken=ExitStack())


_TAKE: dict[Means, Callable[[TcpSocket], Pinned]] = {
    Means.ROUTE: _by_route,
    Means.MARK: _by_mark,
    Means.DELACK_MAX: _by_delack_max,
    Means.REARM: _by_rearming,
}


def _marking(namespace: Namespace) -> _Marking:
    """The bit whose rule and table are in force for this process, made if this is its first pin."""
    key = os.getpid(), namespace.inode
    store = Receipts()
    with _ONE_AT_A_TIME:
        known = _MARKINGS.get(key)
        if known is None:
            _MARKINGS[key] = known = _make_marking(namespace, store)
        elif not store.path(known.receipt).exists():
            raise Refused(
                f"the receipt {known.receipt} of this process was undone",
                consequence="no other is made behind the back of whoever undid it",
                next_step="restart the program, or ask for means='delack-max'",
            )
        return known


def _make_marking(namespace: Namespace, store: Receipts) -> _Marking:
    from ackward.remedies.pin.apply import scope_of_this_process
    from ackward.remedies.transaction import require_net_admin

    require_net_admin()
    remedy = remedies.load("pin")
    for attempt in itertools.count(1):
        plan = remedy.plan(namespace, scope_of_this_process())
        if isinstance(plan, Refusal):
            raise plan.as_error()
        try:
            receipt = remedy.apply(plan, store)
        except Refused:  # another process may have taken the table between plan and apply
            if attempt == _ATTEMPTS:
                raise
            continue
        assert receipt is not None
        bit = next(change.bit for change in receipt.changes if isinstance(change, MarkRuleAdded))
        return _Marking(bit, receipt.id, plan.notes)
    raise AssertionError("the loop ends by return or raise")
