"""What everything in one worker shares."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ackward.gateway.counters import Row
from ackward.gateway.loop import Loop
from ackward.gateway.pipes import Pipes
from ackward.gateway.settings import Hooks, Settings


class Deadlines:
    """Things that must have happened after one constant time: a queue, looked at as its head falls due."""

    def __init__(self, loop: Loop, seconds: float) -> None:
        self._loop, self._seconds = loop, seconds
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()

    def add(self, overdue: Callable[[], None]) -> None:
        """Call ``overdue`` when the time is up. It is called in any case: it looks for itself whether it matters."""
        if not self._waiting:
            self._loop.after(self._seconds, self._look)
        self._waiting.append((self._loop.now + self._seconds, overdue))

    def _look(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._loop.now:
            self._waiting.popleft()[1]()
        if self._waiting:
            self._loop.after(self._waiting[0][0] - self._loop.now, self._look)


@dataclass(slots=True)
class Resources:
    """The loop, the pipes, the settings, the counters and whom to tell."""

    settings: Settings
    hooks: Hooks
    counters: Row
    loop: Loop
    pipes: Pipes
    connect_deadlines: Deadlines = field(init=False)

    def __post_init__(self) -> None:
        """Make what follows from the settings."""
        self.connect_deadlines = Deadlines(self.loop, self.settings.limits.connect)
