"""What a scenario is: a load, what it shows, and which cause a truthful diagnosis must give."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

from ackward.errors import UsageError
from ackward.lab.peer import Shape
from ackward.model.causes import Cause

_WORDS = {
    "on": True,
    "yes": True,
    "true": True,
    "1": True,
    "off": False,
    "no": False,
    "false": False,
    "0": False,
}


@dataclass(frozen=True)
class Scenario:
    """A load and what a truthful diagnosis of it says.

    ``cause`` is where most of the time goes. ``remedy`` is what the lab applies between its two phases; a control
    has none, and its two phases must measure alike.
    """

    name: str
    summary: str
    shape: Shape
    cause: Cause
    remedy: str | None = None

    def with_settings(self, settings: Iterable[str]) -> Scenario:
        """The scenario with ``key=value`` settings applied; raises :class:`UsageError` for what means nothing."""
        given: dict[str, object] = {}
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals or key not in _READERS:
                raise UsageError(
                    f"--set {setting!r} means nothing to {self.name}",
                    next_step=f"use key=value with one of {', '.join(_READERS)}",
                )
            try:
                given[key] = _READERS[key](value)
            except (ValueError, KeyError) as error:
                raise UsageError(
                    f"--set {setting!r}: {value!r} is no value for {key}",
                    next_step=_HINTS.get(key, "give a number"),
                ) from error
        return replace(self, shape=replace(self.shape, **given))  # type: ignore[arg-type]  # keys are Shape's own


def _within(low: float, high: float, kind: type) -> Callable[[str], object]:
    def read(text: str) -> object:
        number = kind(text)
        if not low <= number <= high:
            raise ValueError(f"{number} is not between {low} and {high}")
        return number

    return read


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if not all(1 <= size <= 1_000_000 for size in sizes):
        raise ValueError("sizes are between 1 and 1000000")
    return sizes


def _family(text: str) -> int:
    return {"4": 4, "6": 6}[text]


_READERS: dict[str, Callable[[str], object]] = {
    "pings": _within(1, 64, int),
    "pongs": _within(1, 64, int),
    "sizes": _sizes,
    "answer": _within(1, 1_000_000, int),
    "rounds": _within(1, 100_000, int),
    "latency": _within(0, 10_000, float),
    "pause": _within(0, 10_000, float),
    "nagle": lambda text: _WORDS[text.lower()],
    "family": _family,
    "port": _within(1, 65535, int),
}
_HINTS = {
    "nagle": "say on or off",
    "family": "say 4 or 6",
    "sizes": "give bytes, for example 100,200",
    "latency": "give milliseconds up to 10000",
    "pause": "give milliseconds up to 10000",
    "port": "give a port from 1 to 65535",
}
assert set(_READERS) == {field.name for field in fields(Shape)}
