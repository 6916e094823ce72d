"""Host names of the configuration: resolved before the start, and again and again, never where a connection waits.

What a name stood for last stays in use while DNS fails, and for as long as it is among the answers: their order is no
change. Every change and every failure is told once. Only new connections see a change.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterable, Sequence

from ackward.gateway.config import Endpoint
from ackward.gateway.settings import Address

#: How often names are looked up again, seconds. The system's resolver knows times to live; we do not.
EVERY = 30.0
#: How long the start waits for names.
PATIENCE = 5.0


def look_up(endpoint: Endpoint) -> list[Address]:
    """The addresses of a name, in the system's order of preference (RFC 6724), one at least; raises OSError."""
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    return [(str(place[0]), int(place[1])) for *_, place in found]


class Names:
    """What the names stand for. ``changed`` is called in this object's thread, with an endpoint and its new address."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        say: Callable[[str], None],
        changed: Callable[[Endpoint, Address], None],
        *,
        resolve: Callable[[Endpoint], Sequence[Address]] = look_up,
        every: float = EVERY,
    ) -> None:
        self._say, self._changed, self._resolve, self._every = say, changed, resolve, every
        self.resolved: dict[Endpoint, Address | None] = dict.fromkeys(endpoints)
        self._failing: set[Endpoint] = set()
        #: Set once nobody waits for first answers any more: from then on each is a change.
        self._begun = threading.Event()
        self._stop = False
        self._due = threading.Event()
        # getaddrinfo() may hang for minutes: nobody waits for the end of this thread.
        self._thread = threading.Thread(target=self._run, name="names", daemon=True)

    def start(self, patience: float = PATIENCE) -> None:
        """Resolve all, for at most so many seconds; the rest later."""
        for endpoint in self.resolved:
            if endpoint.is_address:
                self.resolved[endpoint] = (endpoint.host, endpoint.port)
        if all(endpoint.is_address for endpoint in self.resolved):
            return
        self._thread.start()
        self._begun.wait(patience)
        self._begun.set()

    def again(self) -> None:
        """Look all of them up now."""
        self._due.set()

    def stop(self) -> None:
        """No more look-ups."""
        self._stop = True
        self._due.set()

    def _run(self) -> None:
        # Signals are the main thread's: one that came here would end a look-up in the middle (EINTR).
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            for endpoint in self.resolved:
                if not endpoint.is_address:
                    self._look(endpoint)
            self._begun.set()
            self._due.wait(self._every)
            self._due.clear()
            if self._stop:
                return

    def _look(self, endpoint: Endpoint) -> None:
        before = self.resolved[endpoint]
        try:
            answers = self._resolve(endpoint)
        except OSError as error:
            if endpoint not in self._failing:
                self._failing.add(endpoint)
                kept = (
                    f"{before[0]} stays in use"
                    if before
                    else "connections there are refused until it resolves"
                )
                self._say(f"the name {endpoint.host} does not resolve ({error.strerror or error}); {kept}")
            return
        now = before if before is not None and before in answers else answers[0]
        if endpoint in self._failing:
            self._failing.discard(endpoint)
            self._say(f"the name {endpoint.host} resolves again: {now[0]}")
        if now != before:
            self.resolved[endpoint] = now
            if before is not None:
                self._say(
                    f"the name {endpoint.host} is {now[0]} now, no longer {before[0]}; open connections stay"
                )
            if self._begun.is_set():
                self._changed(endpoint, now)
