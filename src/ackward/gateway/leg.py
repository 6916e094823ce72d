"""One leg to another gateway, and an attempt to reach a destination over it.

Laws: a leg carries one connection and ends with it; an idle leg that says anything is not used: what it says is that it
ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ackward.gateway import nonces
from ackward.gateway.counters import Count
from ackward.gateway.initiator import Initiator, Session
from ackward.gateway.loop import READ, WRITE
from ackward.gateway.protocol import Answered, LegFailed, Ready, Retired
from ackward.gateway.protocol_messages import Open, Result
from ackward.gateway.relay import QUIET, Gate, NoConnection
from ackward.gateway.resources import Resources
from ackward.gateway.settings import End, PeerSettings, Retirement
from ackward.gateway.sockets import Socket, connecting, error_of, is_established, set_keepalive
from ackward.gateway.upstream import ENDS_OF_RESULTS


class Leg:
    """One connection to the peer, from its SYN until it is used or dead.

    ``changed`` is called when it may be opened, when it became ready and when it failed (``failure``).
    """

    __slots__ = ("_events", "_resources", "changed", "failure", "initiator", "since", "sock")

    def __init__(
        self,
        resources: Resources,
        peer: PeerSettings,
        session: Session | None,
        changed: Callable[[Leg], None],
    ) -> None:
        """Raises OSError when it cannot even be begun."""
        self._resources, self.changed = resources, changed
        self.failure: LegFailed | OSError | None = None
        self.initiator = Initiator(peer.key, session, random=nonces.fresh)
        self.since = resources.loop.now
        settings = resources.settings
        self.sock: Socket = connecting(peer.address, buffer=settings.buffers.leg, leg=peer)
        set_keepalive(self.sock, settings.limits)
        self._events = WRITE
        resources.loop.add(self.sock.fileno(), WRITE, self._connected)
        resources.counters.add(Count.LEGS_BEGUN)

    def _connected(self, _: int) -> None:
        if error := error_of(self.sock):
            self.fail(OSError(error, os.strerror(error)))
            return
        self._events = READ
        self._resources.loop.hand_over(self.sock.fileno(), self._talk)
        self._resources.loop.want(self.sock.fileno(), READ)
        if self.initiator.may_open:
            # Before anything is sent: JOIN and OPEN leave in one segment, the SYN if it may.
            self.changed(self)
        if self.failure is None:
            self._say()

    def _say(self) -> None:
        data = self.initiator.outgoing()
        try:
            # Its send buffer is empty and holds far more than a message.
            if data and self.sock.send(data) != len(data):
                self.fail(OSError("the kernel took only part of a message"))
        except OSError as error:
            self.fail(error)

    def _talk(self, _: int) -> None:
        try:
            data = self.sock.recv(self.initiator.wanted)
            if not data:
                self.fail(OSError("the peer closed the leg"))
                return
            event = self.initiator.receive(data)
        except BlockingIOError:
            return
        except (LegFailed, OSError) as error:
            self.fail(error)
            return
        self._say()
        match event:
            case Ready():
                self.changed(self)
            case Retired():
                self.fail(Retirement("it drains, or accepts our key no longer"))

    @property
    def is_connected(self) -> bool:
        """Whether messages may be sent."""
        return self._events == READ and self.failure is None

    @property
    def is_gone(self) -> bool:
        """Whether the peer has ended it, also where the loop has yet to say so."""
        return self.failure is not None or not is_established(self.sock)

    def open(self, wanted: Open) -> None:
        """Ask for the connection; fails as :attr:`failure` tells."""
        self.initiator.open(wanted)
        self._say()

    def fail(self, error: LegFailed | OSError) -> None:
        """It is of no use (any more)."""
        if self.failure is None:
            self.failure = error
            self._resources.loop.discard(self.sock)
            self.changed(self)

    def let_go(self) -> None:
        """Nobody wants it: reset it, and tell nobody here."""
        self.changed = nobody
        if self.failure is None:
            self.fail(OSError("given up"))


def nobody(_: Leg) -> None:
    """Nobody is told."""


class LegAttempt:
    """A destination asked for over a leg: usable as soon as the OPEN is on its way, answered by the ANSWER.

    Whoever takes it before has its socket, and the answer yet to come: within the connect limit, as ever.
    """

    __slots__ = (
        "_changed",
        "_events",
        "_leg",
        "_lost",
        "_resources",
        "_taken",
        "_wanted",
        "answered",
        "end",
        "usable",
    )

    def __init__(
        self,
        resources: Resources,
        leg: Leg | None,
        wanted: Open,
        lost: Callable[[LegFailed | OSError], None],
    ) -> None:
        """``leg`` None: none could be begun. ``lost`` is told why it failed before it could be opened."""
        self._resources, self._leg, self._wanted, self._lost = resources, leg, wanted, lost
        self._events = READ
        self._changed: Callable[[], None] | None = None
        self.usable = self.answered = self._taken = False
        self.end: End | None = None
        if leg is None:
            self.end = End.LEG_LOST
            return
        leg.changed = self._leg_changed
        resources.connect_deadlines.add(self._overdue)
        self._open()

    def _open(self) -> bool:
        """Open the leg if it may be opened by now; whether payload may follow."""
        leg = self._leg
        assert leg is not None
        if not leg.is_connected or not leg.initiator.may_open:
            return False
        leg.open(self._wanted)
        if leg.failure is None:
            self.usable = True
            self._resources.loop.hand_over(leg.sock.fileno(), self._readable)
        return self.usable

    def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` when it is usable, answered or has failed."""
        self._changed = changed

    def _leg_changed(self, leg: Leg) -> None:
        if leg.failure is not None:
            self._leg = None
            self._lost(leg.failure)
            self._fail(End.LEG_LOST)
            return
        if not self.usable and self._open():
            self._tell()

    def _readable(self, _: int) -> None:
        """The answer, before anybody took the socket."""
        assert self._leg is not None
        try:
            if self.answered or not self._gate():
                return
        except NoConnection as reason:
            self._drop()
            self._fail(reason.end)
            return
        self.answered = True
        # What follows is payload: it waits in the socket for whoever takes it.
        self._events = QUIET
        self._resources.loop.want(self._leg.sock.fileno(), QUIET)
        self._tell()

    def _gate(self) -> bool:
        assert self._leg is not None
        return answered(self._leg.sock, self._leg.initiator)

    def _taken_gate(self) -> bool:
        if not self._gate():
            return False
        self.answered, self._leg = True, None
        self._tell()
        self._changed = None
        return True

    def _overdue(self) -> None:
        if self._leg is None or self.answered:
            return
        if not self._taken:
            self._drop()
        self._fail(End.CONNECT_TIMEOUT)

    def _drop(self) -> None:
        if self._leg is not None:
            self._leg.let_go()
            self._leg = None

    def _fail(self, end: End) -> None:
        self.end, self.usable = end, False
        self._tell()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed()

    def take(self) -> tuple[Socket, int | None, Gate | None]:
        """The leg's socket; until the answer came its payload is behind the answer."""
        leg = self._leg
        assert leg is not None
        self._taken = True
        if not self.answered:
            return leg.sock, self._events, self._taken_gate
        self._leg = None
        return leg.sock, self._events, None

    def abandon(self) -> None:
        """Reset the leg, or, if it was taken, wait for its answer no longer."""
        self._changed = None
        if self._taken:
            self._leg = None
        self._drop()


def answered(sock: Socket, initiator: Initiator) -> bool:
    """Read on until the ANSWER is there. Raises :class:`NoConnection`."""
    while initiator.wanted:
        try:
            data = sock.recv(initiator.wanted)
            event = initiator.receive(data) if data else None
        except BlockingIOError:
            return False
        except (OSError, LegFailed) as error:
            raise NoConnection(End.LEG_LOST) from error
        if not data:
            raise NoConnection(End.LEG_LOST)
        if isinstance(event, Answered) and event.result is not Result.CONNECTED:
            raise NoConnection(ENDS_OF_RESULTS[event.result])
    return True
