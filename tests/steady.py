"""Which failures a busy machine may have caused.

`make test` asks each test of a real kernel or runtime once more if it failed, and shows what had failed; more than a few
are a failure of the run. That does not help where the tests of a module share one run (:func:`steady`), and must not where
once in many is too often (:data:`FINAL`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

Test = Callable[..., None]

#: Of tests of what must never happen, a lost byte first of all: their failure stands.
FINAL = pytest.mark.flaky(reruns=0)


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
