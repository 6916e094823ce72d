"""The event loop of a worker: level-triggered epoll, and times at which something is due.

Its own instead of asyncio's: a readiness event costs one dictionary look-up and one call (docs/gateway.md has the
measurement). Laws: a handler that was removed is not called any more, not even for an event of the same batch; a
socket is closed after the batch, so that no event meets the next owner of its number; a handler's error ends the
worker, since nothing in here may be half done.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

from ackward.gateway.sockets import Socket

Handler = Callable[[int], None]

READ, WRITE, HANGUP, ERROR, PEER_DONE, URGENT = (
    select.EPOLLIN,
    select.EPOLLOUT,
    select.EPOLLHUP,
    select.EPOLLERR,
    select.EPOLLRDHUP,
    select.EPOLLPRI,
)

#: Events taken from the kernel at once: what is due in between waits for no more than these.
_BATCH = 512


class Loop:
    """Calls handlers of descriptors that are ready, and what is due. ``now`` is the moment of the current batch."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._closing: list[Socket] = []
        self._running = False
        self.now = time.monotonic()

    def add(self, descriptor: int, events: int, handler: Handler) -> None:
        """Call ``handler`` with the events whenever ``descriptor`` is ready."""
        self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def want(self, descriptor: int, events: int) -> None:
        """Be called for these events from now on; 0: only for errors, which always come."""
        self._epoll.modify(descriptor, events)

    def hand_over(self, descriptor: int, handler: Handler) -> None:
        """Another handler for the same descriptor."""
        self._handlers[descriptor] = handler

    def remove(self, descriptor: int) -> None:
        """Forget the descriptor; before it is closed."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def discard(self, socket: Socket) -> None:
        """Forget the socket and close it after this batch, which takes it out of epoll."""
        self._handlers.pop(socket.fileno(), None)
        self._closing.append(socket)

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call ``what`` once, in so many seconds or a little later. It cannot be taken back: it looks for itself."""
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), what))

    def stop(self) -> None:
        """Let :meth:`run` return after the current batch."""
        self._running = False

    def run(self) -> None:
        """Run until stopped."""
        self._running = True
        handlers, poll = self._handlers, self._epoll.poll
        while self._running:
            for descriptor, events in poll(self._timeout(), _BATCH):
                handler = handlers.get(descriptor)
                if handler is not None:
                    handler(events)
            self.now = time.monotonic()
            while self._due and self._due[0][0] <= self.now:
                heapq.heappop(self._due)[2]()
            self._close_discarded()

    def _timeout(self) -> float:
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else -1.0

    def _close_discarded(self) -> None:
        for socket in self._closing:
            socket.close()
        self._closing.clear()

    def close(self) -> None:
        """Close epoll, and what was discarded."""
        self._close_discarded()
        self._epoll.close()
