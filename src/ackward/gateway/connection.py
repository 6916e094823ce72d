"""One client's connection: its socket and an attempt become a relay; its end becomes a record and a number."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from ackward.gateway.counters import Count
from ackward.gateway.relay import Relay
from ackward.gateway.resources import Resources
from ackward.gateway.settings import Address, ConnectionRecord, End, StuckRecord
from ackward.gateway.sockets import Socket, let_fragment, set_keepalive
from ackward.gateway.unacknowledged import SEVERAL, Patience, Step, Unacknowledged, is_idle, look
from ackward.gateway.upstream import Attempt

#: Seconds between two looks at a connection, at most, and connections that are looked at in one go.
_EVERY: Final = 5.0
_AT_ONCE: Final = 1000
#: Seconds within which the legs of a gateway that dies are reset.
_UNDECIDED: Final = 0.1


class Origin(Protocol):
    """Where connections come from: what their records say of it, and who is told what became of the attempt.

    ``peer``: the gateway of their leg (empty: they have none), ``accepts_legs``: which connected it to us.
    """

    name: str
    peer: str
    accepts_legs: bool

    @property
    def far_lost(self) -> bool:
        """Whether the gateway at its far side was lost right now."""

    def joined(self) -> None:
        """The far side is connected; payload may follow. Raises OSError when the near side is gone."""

    def refused(self, near: Socket, end: End) -> None:
        """The far side was not connected, for this reason: ``near`` is the origin's to end."""


def tell_unjoined(
    resources: Resources,
    origin: Origin,
    client: Address,
    destination: Address,
    began: float | None,
    end: End,
) -> None:
    """Count and tell the end of what never became a connection; ``began``: by a SYN, at that moment."""
    resources.counters.end(end)
    resources.hooks.ended(
        ConnectionRecord(
            listener=origin.name,
            client=client,
            destination=destination,
            peer=origin.peer,
            early=began is not None,
            to_server=0,
            to_client=0,
            seconds=0.0 if began is None else time.monotonic() - began,
            connect_seconds=None,
            end=end,
        )
    )


class Connections:
    """All open connections of a worker; ends those that rest too long, or whose ends acknowledge nothing."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._open: set[Connection] = set()
        self._undecided: dict[int, Callable[[], None]] = {}
        limits = resources.settings.limits
        self._every = min(_EVERY, max(0.05, min(limits.idle, limits.unacknowledged) / 8))
        resources.loop.after(self._every, self._look)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._open)

    @property
    def full(self) -> bool:
        """Whether there is no room for another."""
        return len(self._open) >= self._resources.settings.limits.connections

    def add(self, connection: Connection) -> None:
        """It begins."""
        self._open.add(connection)
        self._resources.counters.set(Count.CONNECTIONS, len(self._open))

    def remove(self, connection: Connection) -> None:
        """It is over."""
        self._open.discard(connection)
        self._resources.counters.set(Count.CONNECTIONS, len(self._open))

    def _look(self) -> None:
        pipes = self._resources.pipes
        self._resources.counters.set(Count.PIPES, pipes.open)
        self._resources.counters.set(Count.PIPES_NOT_EMPTY, pipes.refused)
        self._look_at(list(self._open))

    def _look_at(self, left: list[Connection]) -> None:
        """Look at some of them; the others after whatever waits for the loop meanwhile."""
        loop = self._resources.loop
        since = loop.now - self._resources.settings.limits.idle
        for connection in left[-_AT_ONCE:]:
            if connection not in self._open:
                continue
            if connection.rests_since < since:
                connection.abort(End.IDLE)
            else:
                connection.stays()
        del left[-_AT_ONCE:]
        if left:
            loop.after(0, partial(self._look_at, left))
        else:
            loop.after(self._every, self._look)

    def tell(self, record: ConnectionRecord) -> None:
        """Count and tell the end of one."""
        self._resources.counters.end(record.end)
        self._resources.hooks.ended(record)

    def tell_once_decided(self, record: ConnectionRecord, origin: Origin) -> None:
        """The same for one whose leg was reset: by the server, or by an exit that died and resets all its legs now."""
        decide = self._undecided[id(record)] = partial(self._decide, record, origin)
        self._resources.loop.after(_UNDECIDED, decide)

    def _decide(self, record: ConnectionRecord, origin: Origin) -> None:
        if self._undecided.pop(id(record), None):
            self.tell(replace(record, end=End.LEG_LOST) if origin.far_lost else record)

    def abort_all(self) -> None:
        """End all of them now."""
        for connection in list(self._open):
            connection.abort(End.STOPPED)
        for decide in list(self._undecided.values()):
            decide()


class Connection:
    """From the client's socket to the record."""

    __slots__ = (
        "_attempt",
        "_began",
        "_connected",
        "_connections",
        "_early",
        "_near",
        "_near_events",
        "_near_socket",
        "_nothing_since",
        "_origin",
        "_patience",
        "_relay",
        "_resources",
        "_stays",
        "_suspects",
        "client",
        "destination",
    )

    def __init__(
        self,
        resources: Resources,
        connections: Connections,
        origin: Origin,
        near: Socket,
        client: Address,
        destination: Address,
        attempt: Attempt,
        *,
        began: float | None = None,
        near_events: int | None = None,
    ) -> None:
        """``began``: the moment of the SYN that began the attempt; None: it began now."""
        self._resources, self._connections, self._origin = resources, connections, origin
        self._near: Socket | None = near
        self._near_events = near_events
        self.client, self.destination = client, destination
        self._attempt: Attempt | None = attempt
        self._early = began is not None
        self._began = time.monotonic() if began is None else began
        self._connected: float | None = None
        self._relay: Relay | None = None
        self._stays = False
        self._near_socket = near
        # Most connections never need these: none is made for them.
        self._patience: dict[Socket, Patience] | None = None
        self._suspects: dict[Socket, StuckRecord] | None = None
        self._nothing_since = 0.0
        connections.add(self)
        if attempt.usable or attempt.end is not None:
            self._changed()
        else:
            attempt.watch(self._changed)

    @property
    def rests_since(self) -> float:
        """The moment of its last bytes, or infinity while it is not connected: that has a limit of its own."""
        return self._relay.active if self._relay else float("inf")

    def stays(self) -> None:
        """It lasts: a far side that has vanished must be noticed, and ends that acknowledge nothing."""
        relay, now = self._relay, self._resources.loop.now
        if relay is None:
            return
        if not self._stays:
            self._stays = True
            set_keepalive(relay.far, self._resources.settings.limits)
        if relay.active < self._nothing_since:
            return  # both sockets were empty at an earlier look, and nothing came since
        sockets = (self._near_socket, relay.far)
        idle = tuple(map(is_idle, sockets))
        if all(idle) and self._patience is None:
            self._nothing_since = now
            return
        steps = [
            self._wait_for(sock, None if nothing else look(sock), now)
            for sock, nothing in zip(sockets, idle, strict=True)
        ]
        if Step.GIVE_UP in steps:
            self.abort(End.UNACKNOWLEDGED)

    def _wait_for(self, sock: Socket, what: Unacknowledged | None, now: float) -> Step:
        if what is None and (self._patience is None or sock not in self._patience):
            return Step.WAIT
        self._patience = self._patience or {}
        patience = self._patience.setdefault(sock, Patience(now))
        step = patience.see(what, now, self._resources.settings.limits.unacknowledged)
        if step is Step.SUSPECT:
            self._suspect(sock, patience)
        elif step is Step.WENT_ON:
            self._went_on(sock)
        return step

    def _suspect(self, sock: Socket, patience: Patience) -> None:
        assert patience.what is not None
        accepted = sock is self._near_socket
        try:
            address = sock.getpeername()[:2]
        except OSError:
            return  # it has ended meanwhile
        if fragments := let_fragment(sock):
            patience.fragments()
        record = StuckRecord(
            listener=self._origin.name,
            client=self.client,
            address=address,
            peer=self._origin.peer if accepted is self._origin.accepts_legs else "",
            accepted=accepted,
            what=patience.what,
            fragments=fragments,
        )
        self._suspects = (self._suspects or {}) | {sock: record}
        self._resources.counters.add(Count.STUCK)
        self._resources.hooks.stuck(record)

    def _went_on(self, sock: Socket) -> None:
        assert self._suspects is not None
        self._resources.counters.add(Count.WENT_ON_IN_FRAGMENTS)
        self._resources.hooks.stuck(replace(self._suspects[sock], went_on=True))

    @property
    def stuck(self) -> Iterator[tuple[Address, float, Unacknowledged]]:
        """Where what is sent again and again is not acknowledged: to whom, for how many seconds, and what."""
        for sock, patience in (self._patience or {}).items():
            if patience.what is not None and patience.what.timeouts >= SEVERAL:
                with suppress(OSError):
                    yield sock.getpeername()[:2], self._resources.loop.now - patience.since, patience.what

    @property
    def listener(self) -> str:
        """Where it came in."""
        return self._origin.name

    @property
    def moved(self) -> tuple[int, int]:
        """Payload bytes to the server and to the client so far."""
        return (self._relay.up.moved, self._relay.down.moved) if self._relay else (0, 0)

    @property
    def held(self) -> int:
        """Bytes between the sockets."""
        return self._relay.held if self._relay else 0

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self._began

    def _changed(self) -> None:
        attempt = self._attempt
        assert attempt is not None
        if self._relay is not None:
            self._answered(attempt)
            return
        near = self._near
        assert near is not None
        if attempt.end is not None:
            self._attempt = self._near = None
            self._origin.refused(near, attempt.end)
            self._ended(attempt.end)
            return
        if not attempt.usable:
            return
        try:
            self._origin.joined()
        except OSError:
            self.abort(End.CLIENT_RESET)
            return
        far, events, gate = attempt.take()
        self._near = None
        if gate is None:
            self._answered(attempt)
        else:
            attempt.watch(self._changed)
        resources = self._resources
        self._relay = Relay(
            resources.loop,
            resources.pipes,
            near,
            far,
            self._ended,
            gate=gate,
            near_events=self._near_events,
            far_events=events,
            splice=resources.settings.steps.splice,
        )
        self._relay.start()

    def _answered(self, attempt: Attempt) -> None:
        """The server was connected, or will not be, although the client may have sent something by now."""
        if attempt.end is not None:
            self.abort(attempt.end)
            return
        self._attempt = None
        self._connected = time.monotonic()

    def abort(self, end: End) -> None:
        """End it now; the client gets a reset, and so does the far side."""
        if self._relay is not None:
            self._relay.abort(end)
            return
        if self._near is not None:
            self._resources.loop.discard(self._near)
            self._near = None
        self._ended(end)

    def _leave_to_the_kernel(self) -> None:
        """All was handed over; nobody can look at what the kernel sends on after its sockets are closed."""
        assert self._relay is not None
        for sock in self._suspects or ():
            if is_idle(sock):
                self._wait_for(sock, None, self._resources.loop.now)
        if self._origin.peer:
            let_fragment(self._near_socket if self._origin.accepts_legs else self._relay.far)

    def _ended(self, end: End) -> None:
        self._connections.remove(self)
        if self._attempt is not None:
            self._attempt.abandon()
            self._attempt = None
        if end is End.DONE:
            self._leave_to_the_kernel()
        to_server, to_client = self.moved
        counters = self._resources.counters
        counters.add(Count.TO_SERVER, to_server)
        counters.add(Count.TO_CLIENT, to_client)
        record = ConnectionRecord(
            listener=self._origin.name,
            client=self.client,
            destination=self.destination,
            peer=self._origin.peer,
            early=self._early,
            to_server=to_server,
            to_client=to_client,
            seconds=self.seconds,
            connect_seconds=None if self._connected is None else self._connected - self._began,
            end=end,
        )
        if end is End.SERVER_RESET and self._origin.peer and not self._origin.accepts_legs:
            self._connections.tell_once_decided(record, self._origin)
        else:
            self._connections.tell(record)
