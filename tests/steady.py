"""Tests that share a run which a busy machine may disturb."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Test = Callable[..., None]


def steady(run: str, anew: Callable[[Any], Any]) -> Callable[[Test], Test]:
    """Where a test fails on the shared run, its argument of that name, it is asked once more on a run of its own.

    ``anew`` makes that, from the one that was shared. What is wrong with the program is wrong in both.
    """

    def asked_twice(test: Test) -> Test:
        @functools.wraps(test)
        def twice(**arguments: Any) -> None:
            try:
                test(**arguments)
            except AssertionError:
                test(**{**arguments, run: anew(arguments[run])})

        return twice

    return asked_twice
