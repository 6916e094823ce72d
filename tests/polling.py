"""Waiting in tests: ask again and again, never sleep for as long as something is thought to take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

#: Seconds between two questions: short beside what is waited for, and long enough to let others work.
_PAUSE = 0.005


def eventually(condition: Callable[[], Seen], *, within: float = 10.0) -> Seen:
    """Ask until the answer is true, for so many seconds, and give the last answer.

    It is asked once at least. The answer is false, as the condition gave it, only when the time is over; so a test says
    ``assert eventually(lambda: ...)``, and where it needs what it waited for, ``assert (found := eventually(...))``. What the
    condition raises goes through: a process that has ended need not be waited for.
    """
    deadline = time.monotonic() + within
    while not (seen := condition()) and time.monotonic() <= deadline:
        time.sleep(_PAUSE)
    return seen
