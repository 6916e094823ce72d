"""Attempts to reach a destination: what a connection waits for before its bytes can flow."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, Protocol

from ackward.gateway.loop import ERROR, HANGUP, WRITE
from ackward.gateway.protocol_messages import Result
from ackward.gateway.relay import QUIET, Gate
from ackward.gateway.resources import Resources
from ackward.gateway.settings import Address, End
from ackward.gateway.sockets import Socket, connecting, error_of

#: What an errno of connect(2) is to the one who asked; any other is a failure of our own.
_ENDS: Final = {
    errno.ECONNREFUSED: End.REFUSED,
    errno.ECONNRESET: End.REFUSED,
    errno.ENETUNREACH: End.UNREACHABLE,
    errno.EHOSTUNREACH: End.UNREACHABLE,
    errno.EHOSTDOWN: End.UNREACHABLE,
    errno.ENETDOWN: End.UNREACHABLE,
    errno.ENOPROTOOPT: End.REFUSED,  # ICMP protocol unreachable, RFC 1122 section 4.2.3.9
    errno.EACCES: End.UNREACHABLE,  # a `prohibit` route, or ICMP administratively prohibited
    errno.ETIMEDOUT: End.CONNECT_TIMEOUT,
    errno.EADDRNOTAVAIL: End.BUSY,  # no port is left towards this destination
    errno.EMFILE: End.BUSY,
    errno.ENFILE: End.BUSY,
}
RESULTS: Final = {
    End.REFUSED: Result.REFUSED,
    End.UNREACHABLE: Result.UNREACHABLE,
    End.CONNECT_TIMEOUT: Result.TIMEOUT,
    End.FORBIDDEN: Result.FORBIDDEN,
    End.BUSY: Result.BUSY,
}
ENDS_OF_RESULTS: Final = {result: end for end, result in RESULTS.items()} | {Result.FAILED: End.FAILED}


def end_of(error: int) -> End:
    """What an errno means to the one who wanted the connection."""
    return _ENDS.get(error, End.FAILED)


class Attempt(Protocol):
    """One try. When it is settled, or usable, its watcher is told; then it is taken or abandoned.

    ``usable``: payload may be sent. ``answered``: the destination has accepted (``usable`` too then). ``end``: why it
    failed, None while it has not.
    """

    usable: bool
    answered: bool
    end: End | None

    def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever one of the three has changed."""

    def take(self) -> tuple[Socket, int | None, Gate | None]:
        """The socket of a usable attempt, what the loop watches it for, and what comes before its payload.

        With a gate it is not answered yet: the watcher is told when it is, or has failed, and ends the socket then.
        """

    def abandon(self) -> None:
        """Nobody wants it any more. Also after it failed, or was taken: then its watcher is not told any more."""


class Upstream(Protocol):
    """Where connections go."""

    @property
    def just_lost(self) -> bool:
        """Whether the gateway there was lost right now, and its legs with it."""

    def begin(self, destination: Address, client: Address, *, keep_client: bool) -> Attempt:
        """Start an attempt; a failure is told by the attempt, never raised."""


def _nobody() -> None:
    """Nobody is told."""


class DirectAttempt:
    """A connection of our own to the destination."""

    __slots__ = ("_changed", "_events", "_far", "_resources", "answered", "end", "usable")

    def __init__(self, resources: Resources, destination: Address, source: Address | None) -> None:
        self._resources = resources
        self._changed: Callable[[], None] = _nobody
        self._events = WRITE
        self.usable = self.answered = False
        self.end: End | None = None
        self._far: Socket | None = None
        settings = resources.settings
        try:
            self._far = far = connecting(destination, buffer=settings.buffers.near, source=source)
            resources.loop.add(far.fileno(), WRITE, self._ready)
        except OSError as error:
            self.end = end_of(error.errno or 0)
            return
        resources.connect_deadlines.add(self._overdue)

    def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` when it is connected or has failed."""
        self._changed = changed

    def _ready(self, events: int) -> None:
        assert self._far is not None
        if events & (ERROR | HANGUP) and (error := error_of(self._far)):
            self._fail(end_of(error))
            return
        if self.usable:
            return
        self.usable = self.answered = True
        if self._changed is _nobody:
            # Not claimed yet: what the server says meanwhile waits in its buffer.
            self._events = QUIET
            self._resources.loop.want(self._far.fileno(), QUIET)
        self._changed()

    def _overdue(self) -> None:
        if not self.usable and self.end is None:
            self._fail(End.CONNECT_TIMEOUT)

    def _fail(self, end: End) -> None:
        self.end = end
        self.usable = self.answered = False
        if self._far is not None:
            self._resources.loop.discard(self._far)
            self._far = None
        self._changed()

    def take(self) -> tuple[Socket, int | None, Gate | None]:
        """The connected socket."""
        far, self._far = self._far, None
        assert far is not None
        return far, self._events, None

    def abandon(self) -> None:
        """Reset it."""
        self._changed = _nobody
        if self._far is not None:
            self._fail(End.UNCLAIMED)


class Direct:
    """Connects to destinations from this host."""

    just_lost: Final = False  # there is no gateway in between

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def begin(self, destination: Address, client: Address, *, keep_client: bool) -> DirectAttempt:
        """A connection to ``destination``, from the client's own address if that is to be kept."""
        return DirectAttempt(self._resources, destination, client if keep_client else None)
