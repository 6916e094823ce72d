"""Two sockets joined: what one end sends, the other end gets, byte for byte, until both are done.

Laws:

- Bytes leave in the order in which they came; none is added and none is lost, except by a reset.
- The end of one direction closes only that direction (RFC 9293, section 3.6). A reset at one end becomes a reset
  at the other.
- A direction reads no more while its far side takes no more: what waits in here is one pipe at most.
- A pipe is held only while bytes are in it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import Final

from ackward.gateway.loop import ERROR, HANGUP, PEER_DONE, READ, URGENT, WRITE, Loop
from ackward.gateway.pipes import Pipe, Pipes
from ackward.gateway.settings import End
from ackward.gateway.sockets import Socket, end_in_order, error_of

_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_MOST: Final = 1 << 20
#: Chunks that one direction may move before the others get their turn.
_TURNS: Final = 8
#: What comes in so few bytes is copied: that takes two calls, and a pipe takes three. It fits into the smallest pipe,
#: where it waits if the sink does not take it.
_SMALL: Final = 4096
#: A chunk that is smaller has most often emptied the source: to ask again would cost more than to be told.
_BULK: Final = 64 << 10
READING: Final = READ | PEER_DONE | URGENT
#: The far side of a direction may take bytes again, or never will.
_TAKES: Final = WRITE | ERROR | HANGUP
#: Nothing is wanted. Edge-triggered, so that a hang-up, which always comes, is told once and not for ever.
QUIET: Final = select.EPOLLET


#: Keep-alive probes, or data, went without an answer; or with one from a router (tcp_write_err(): sk_err_soft).
_UNANSWERED: Final = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)


class Lost(Exception):
    """One of the ends is gone; ``near``: the client's. ``number``: the errno that the kernel said it with."""

    def __init__(self, number: int | None, *, near: bool) -> None:
        self.number, self.near = number, near
        super().__init__("near" if near else "far")

    @property
    def end(self) -> End:
        """How the connection ended."""
        if self.number in _UNANSWERED:
            return End.UNACKNOWLEDGED
        return End.CLIENT_RESET if self.near else End.SERVER_RESET


class Direction:
    """One way through a relay. ``moved`` bytes were handed to the sink; ``stalled``: it takes no more for now."""

    __slots__ = (
        "_bulk",
        "_from_near",
        "_pipe",
        "_pipes",
        "_sink",
        "_source",
        "done",
        "ended",
        "moved",
        "stalled",
    )

    def __init__(self, source: Socket, sink: Socket, pipes: Pipes, *, from_near: bool) -> None:
        self._source, self._sink, self._pipes, self._from_near = source, sink, pipes, from_near
        self._pipe: Pipe | None = None
        self._bulk = False  # whether more came the last time than is copied
        self.moved = 0
        self.stalled = self.ended = self.done = False

    def pump(self, *, more: bool, urgent: bool) -> None:
        """Move what can be moved. ``more``: the source's end has come; ``urgent``: so has an urgent byte.

        Raises :class:`Lost`.
        """
        if self._pipe is None and (urgent or not self._bulk) and not self._copy(more=more):
            return
        pipe = self._pipe or self._pipes.take()
        self._pipe = pipe
        try:
            for _ in range(_TURNS):
                if pipe.held and not self._drain(pipe):
                    return
                # splice() stops before an urgent byte for ever (tcp_read_sock()): that is copied, next time.
                if self.ended or urgent or not self._fill(pipe, more=more):
                    break
                if pipe.held < _BULK and not more:
                    break
            if pipe.held and not self._drain(pipe):
                return
        finally:
            if not pipe.held:
                self._pipe = None
                self._pipes.give_back(pipe)
        self.stalled = False

    def _copy(self, *, more: bool) -> bool:
        """Move what comes in few bytes, without a pipe; true if it is more than that, and the rest is to be spliced."""
        while True:
            try:
                data = self._source.recv(_SMALL)
            except BlockingIOError:
                return False
            except OSError as error:
                raise Lost(error.errno, near=self._from_near) from error
            if not data:
                self.ended = True
                return False
            try:
                count = self._sink.send(data)
            except BlockingIOError:
                count = 0
            except OSError as error:
                raise Lost(error.errno, near=not self._from_near) from error
            self.moved += count
            if count < len(data):
                self._pipe = pipe = self._pipes.take()
                pipe.held, pipe.used = os.write(pipe.into, data[count:]), True
                self.stalled = True
                return False
            self._bulk = len(data) == _SMALL
            if self._bulk or not more:
                return self._bulk

    def _fill(self, pipe: Pipe, *, more: bool) -> bool:
        """Take bytes from the source; false if it has none now."""
        try:
            count = os.splice(self._source.fileno(), pipe.into, _MOST, flags=_FLAGS)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Lost(error.errno, near=self._from_near) from error
        if count:
            pipe.held, pipe.used = count, True
            self._bulk = count > _SMALL
            return True
        # Before an urgent byte that came meanwhile splice() says so, too: only an end that was told is one.
        self.ended = more
        return False

    def _drain(self, pipe: Pipe) -> bool:
        """Give the sink what is in the pipe; false if it did not take all."""
        while pipe.held:
            try:
                count = os.splice(pipe.out, self._sink.fileno(), pipe.held, flags=_FLAGS)
            except BlockingIOError:
                self.stalled = True
                return False
            except OSError as error:
                raise Lost(error.errno, near=not self._from_near) from error
            pipe.held -= count
            self.moved += count
        return True

    @property
    def is_through(self) -> bool:
        """Whether all that the source had to say was handed over, but for its end."""
        return self.ended and not self.stalled

    def finish(self) -> None:
        """Let the sink know that nothing follows."""
        try:
            self._sink.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Lost(error.errno, near=not self._from_near) from error
        self.done = True

    @property
    def held(self) -> int:
        """Bytes that are between the two sockets."""
        return self._pipe.held if self._pipe else 0

    def abandon(self) -> None:
        """Give up what is held."""
        if self._pipe is not None:
            self._pipes.give_back(self._pipe)
            self._pipe = None


class CopyingDirection(Direction):
    """The same with bytes copied through this process: to be compared with."""

    __slots__ = ("_held",)

    def __init__(self, source: Socket, sink: Socket, pipes: Pipes, *, from_near: bool) -> None:
        super().__init__(source, sink, pipes, from_near=from_near)
        self._held = memoryview(b"")

    def pump(self, *, more: bool, urgent: bool) -> None:  # noqa: ARG002 - recv(2) does not stop there
        """Move what can be moved. Raises :class:`Lost`."""
        for _ in range(_TURNS):
            if self._held and not self._send():
                return
            if self.ended or not self._receive() or (len(self._held) < _BULK and not more):
                break
        if self._held and not self._send():
            return
        self.stalled = False

    def _receive(self) -> bool:
        try:
            data = self._source.recv(_MOST >> 2)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Lost(error.errno, near=self._from_near) from error
        self.ended = not data
        self._held = memoryview(data)
        return True

    def _send(self) -> bool:
        while self._held:
            try:
                count = self._sink.send(self._held)
            except BlockingIOError:
                self.stalled = True
                return False
            except OSError as error:
                raise Lost(error.errno, near=not self._from_near) from error
            self._held = self._held[count:]
            self.moved += count
        return True

    @property
    def held(self) -> int:
        """Bytes that are between the two sockets."""
        return len(self._held)

    def abandon(self) -> None:
        """Give up what is held."""
        self._held = memoryview(b"")


#: What stands before the far side's payload: called when the far side can be read, until it says that payload
#: follows. Raises :class:`NoConnection`.
Gate = Callable[[], bool]


class NoConnection(Exception):
    """There will be no connection to the far side, and why."""

    def __init__(self, end: End) -> None:
        self.end = end
        super().__init__(end.value)


class Relay:
    """Joins ``near`` (the client's side) and ``far``, both connected; ``told`` is called once, when both are discarded.

    ``near_events`` and ``far_events``: what the loop is to watch them for already, None where it does not.
    """

    __slots__ = (
        "_far_events",
        "_gate",
        "_loop",
        "_near",
        "_near_events",
        "_told",
        "active",
        "down",
        "far",
        "up",
    )

    def __init__(
        self,
        loop: Loop,
        pipes: Pipes,
        near: Socket,
        far: Socket,
        told: Callable[[End], None],
        *,
        gate: Gate | None = None,
        near_events: int | None = None,
        far_events: int | None = None,
        splice: bool = True,
    ) -> None:
        self._loop, self._near, self.far, self._told, self._gate = loop, near, far, told, gate
        direction = Direction if splice else CopyingDirection
        self.up = direction(near, far, pipes, from_near=True)
        self.down = direction(far, near, pipes, from_near=False)
        self.active = loop.now
        self._near_events = self._far_events = READING
        _watch(loop, near.fileno(), near_events, self._near_ready)
        _watch(loop, far.fileno(), far_events, self._far_ready)

    def start(self) -> None:
        """Move what is there already: the client has most often sent its request by now."""
        self._step(READ, 0)

    def _near_ready(self, events: int) -> None:
        self._step(events, 0)

    def _far_ready(self, events: int) -> None:
        self._step(0, events)

    def _step(self, near: int, far: int) -> None:
        self.active = self._loop.now
        up, down = self.up, self.down
        try:
            if not up.done and (near & ~WRITE or far & _TAKES):
                up.pump(more=bool(near & PEER_DONE), urgent=bool(near & URGENT))
            if not down.done and (far & ~WRITE or near & _TAKES):
                self._pump_down(far)
            if up.is_through and down.is_through:
                # Closing is what tells both ends.
                end_in_order(self._near)
                end_in_order(self.far)
                self._leave(End.DONE)
                return
            for direction in (up, down):
                if direction.is_through and not direction.done:
                    direction.finish()
            if (near | far) & (ERROR | HANGUP):
                self._look_for_errors()
        except Lost as lost:
            self.abort(lost.end)
            return
        except NoConnection as reason:
            self.abort(reason.end)
            return
        except OSError:
            self.abort(End.BUSY)  # no descriptors are left for a pipe
            return
        self._want()

    def _pump_down(self, far: int) -> None:
        if self._gate is not None:
            if not far & ~WRITE or not self._gate():
                return
            self._gate = None
        self.down.pump(more=bool(far & PEER_DONE), urgent=bool(far & URGENT))

    def _look_for_errors(self) -> None:
        if number := error_of(self._near):
            raise Lost(number, near=True)
        if number := error_of(self.far):
            raise Lost(number, near=False)

    def _want(self) -> None:
        """Ask for the events that matter now."""
        up, down = self.up, self.down
        near = (0 if up.stalled or up.ended else READING) | (WRITE if down.stalled else 0) or QUIET
        far = (0 if down.stalled or down.ended else READING) | (WRITE if up.stalled else 0) or QUIET
        if near != self._near_events:
            self._loop.want(self._near.fileno(), near)
            self._near_events = near
        if far != self._far_events:
            self._loop.want(self.far.fileno(), far)
            self._far_events = far

    @property
    def held(self) -> int:
        """Bytes that are in this process' pipes for this connection."""
        return self.up.held + self.down.held

    def abort(self, end: End) -> None:
        """End it now: both ends get a reset."""
        self._leave(end)

    def _leave(self, end: End) -> None:
        self.up.abandon()
        self.down.abandon()
        self._loop.discard(self._near)
        self._loop.discard(self.far)
        self._told(end)


def _watch(loop: Loop, descriptor: int, events: int | None, handler: Callable[[int], None]) -> None:
    if events is None:
        loop.add(descriptor, READING, handler)
        return
    loop.hand_over(descriptor, handler)
    if events != READING:
        loop.want(descriptor, READING)
