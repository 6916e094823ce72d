"""Accepting clients: a listener of this worker, and what becomes of each connection that it accepts."""

from __future__ import annotations

import errno
from typing import Protocol

from ackward.gateway.connection import Connection, Connections
from ackward.gateway.counters import Count
from ackward.gateway.loop import READ
from ackward.gateway.relay import QUIET
from ackward.gateway.resources import Resources
from ackward.gateway.settings import Address, End, Listener, TransparentListener
from ackward.gateway.sockets import BACKLOG, Socket
from ackward.gateway.upstream import Attempt, Upstream

#: Connections accepted at one go: then the open ones get their turn.
_AT_ONCE = 64
#: Seconds without accepting when there are no descriptors left.
_PAUSE = 0.1


class Begun(Protocol):
    """Attempts that were begun before their client was accepted."""

    def claim(self, client: Address, local: Address) -> tuple[Attempt, float] | None:
        """The attempt that this client's SYN to this local address began, and when; it is the caller's now."""


class Accepting:
    """A listening socket of this worker; :meth:`enter` gets what comes."""

    def __init__(self, resources: Resources, sock: Socket) -> None:
        self._resources, self._sock = resources, sock
        self._kind = (sock.family, sock.type, sock.proto)
        resources.loop.add(sock.fileno(), READ, self._ready)

    def _ready(self, _: int) -> None:
        self._accept(_AT_ONCE)

    def _accept(self, most: int) -> None:
        for _ in range(most):
            try:
                descriptor, client = self._sock._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                self._cannot_accept(error)
                return
            near = Socket(*self._kind, descriptor)
            near.settimeout(0)
            self.enter(near, client[:2])

    def enter(self, near: Socket, client: Address) -> None:
        """A connection was accepted."""
        raise NotImplementedError

    def _cannot_accept(self, error: OSError) -> None:
        """Aborted in the queue: the next. Without descriptors: a pause, or the loop would spin."""
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            return
        self._resources.counters.add(Count.BUSY)
        self._resources.loop.want(self._sock.fileno(), QUIET)
        self._resources.loop.after(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        if self._sock.fileno() >= 0:
            self._resources.loop.want(self._sock.fileno(), READ)

    def close(self) -> None:
        """Accept nobody any more but those who were connected by now."""
        self._accept(BACKLOG + 1)  # the kernel holds one more than it is told (sk_acceptq_is_full())
        self._resources.loop.remove(self._sock.fileno())
        self._sock.close()


class Entrance(Accepting):
    """Where clients arrive. ``destination`` may be exchanged when a name resolves to something else."""

    def __init__(
        self,
        resources: Resources,
        connections: Connections,
        listener: Listener,
        sock: Socket,
        upstream: Upstream,
    ) -> None:
        super().__init__(resources, sock)
        self.name, self.peer = listener.name, listener.peer
        self.is_transparent = isinstance(listener, TransparentListener)
        self.destination = None if isinstance(listener, TransparentListener) else listener.destination
        self.accepts_legs = False
        self._keep_client = isinstance(listener, TransparentListener) and listener.keep_client
        self._connections, self._upstream = connections, upstream
        #: What SYNs began already.
        self.begun: Begun | None = None

    def enter(self, near: Socket, client: Address) -> None:
        """A client arrives."""
        self._resources.counters.add(Count.ACCEPTED)
        if self._connections.full:
            limit = self._resources.settings.limits.connections
            self._turn_away(near, client, f"limits.connections = {limit} are open")
            return
        local = near.getsockname()[:2] if self.is_transparent or self.begun else None
        destination = local if self.is_transparent else self.destination
        if destination is None:
            self._turn_away(near, client, "the name of its target has never been resolved")
            return
        began: float | None = None
        attempt: Attempt | None = None
        if self.begun is not None and local is not None and (claimed := self.begun.claim(client, local)):
            attempt, began = claimed
        if attempt is None:
            attempt = self.begin(destination, client)
        Connection(self._resources, self._connections, self, near, client, destination, attempt, began=began)

    @property
    def far_lost(self) -> bool:
        """Whether the gateway behind it was lost right now."""
        return self._upstream.just_lost

    def begin(self, destination: Address, client: Address) -> Attempt:
        """Start towards the destination."""
        return self._upstream.begin(destination, client, keep_client=self._keep_client)

    def wanted(self, local: Address) -> Address | None:
        """Where a connection to this local address shall go; None: nowhere yet."""
        return local if self.is_transparent else self.destination

    def joined(self) -> None:
        """The far side is connected: the client need not be told."""

    def refused(self, near: Socket, _: End) -> None:
        """The far side refuses: so does a reset."""
        self._resources.loop.discard(near)

    def _turn_away(self, near: Socket, client: Address, why: str) -> None:
        self._resources.counters.add(Count.BUSY)
        self._resources.hooks.turned_away(self.name, client, why)
        near.close()
