"""What a scenario is: a load, what it shows, and which cause a truthful diagnosis must give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from ackward.errors import UsageError
from ackward.lab.peer import Shape
from ackward.lab.wan import Wan
from ackward.model.causes import Cause, End, Grade

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
class Excuse:
    """A cause that a truthful diagnosis may name beside the scenario's own; ``grade`` is the best it may claim."""

    cause: Cause
    grade: Grade = Grade.OBSERVED


@dataclass(frozen=True)
class Scenario:
    """A load, the two hosts that it runs on, and what a truthful diagnosis of it says.

    ``cause`` is where most of the stalled time goes; ``holding_end`` and ``delaying_end`` are who does it, where the
    cause has such ends. ``also`` are causes that may be named beside it; ``seen_from`` says what one end alone can tell
    where that is less. ``remedy`` is what the lab applies between its two phases; without one the second phase
    measures the same again.

    ``wan`` puts a long link between the hosts; ``sysctls`` hold in both of them; ``server_metrics`` and
    ``client_metrics`` are attributes of that host's route to the other, in the words of ``ip route``.

    ``calm`` are the settings under which the same load does not stall (the link's losses and the metrics go as well):
    the baseline. The first ``warmup`` rounds show something else and are not counted; ``margin`` is how many
    milliseconds above the baseline a stalled round is.
    """

    name: str
    summary: str
    shape: Shape
    cause: Cause
    remedy: str | None = None
    holding_end: End | None = None
    delaying_end: End | None = None
    also: tuple[Excuse, ...] = ()
    seen_from: Mapping[End, Cause] = field(default_factory=dict)
    wan: Wan | None = None
    sysctls: Mapping[str, str] = field(default_factory=dict)
    client_metrics: tuple[str, ...] = ()
    server_metrics: tuple[str, ...] = ()
    calm: tuple[str, ...] = ()
    warmup: int = 0
    margin: float = 15.0

    def calmed(self) -> Scenario:
        """The same load without its stall."""
        calm = self.with_settings(self.calm)
        wan = self.wan.unharmed() if self.wan else None
        return replace(calm, wan=wan, client_metrics=(), server_metrics=())

    def with_settings(self, settings: Iterable[str]) -> Scenario:
        """The scenario with ``key=value`` settings applied; raises :class:`UsageError` for what means nothing."""
        given = read_settings(self.name, settings, READERS, HINTS)
        return replace(self, shape=replace(self.shape, **given))  # type: ignore[arg-type]  # keys are Shape's own


def read_settings(
    name: str,
    settings: Iterable[str],
    readers: Mapping[str, Callable[[str], object]],
    hints: Mapping[str, str],
) -> dict[str, object]:
    """The values of ``key=value`` settings of the scenario ``name``; each key has a reader, which raises ValueError.

    Raises :class:`UsageError`, with the key's hint, for what means nothing.
    """
    given: dict[str, object] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or key not in readers:
            raise UsageError(
                f"--set {setting!r} means nothing to {name}",
                consequence="nothing was run",
                next_step=f"use key=value with one of {', '.join(readers)}",
            )
        try:
            given[key] = readers[key](value)
        except (ValueError, KeyError) as error:
            usual = str(error) if isinstance(error, OutOfRange) else "give a number"
            raise UsageError(
                f"--set {setting!r}: {value!r} is no value for {key}",
                consequence="nothing was run",
                next_step=hints.get(key, usual),
            ) from error
    return given


class OutOfRange(ValueError):
    """No number between two limits; says which these are."""


def within(low: float, high: float, kind: type) -> Callable[[str], object]:
    """A reader of numbers of one kind between two limits."""

    def read(text: str) -> object:
        try:
            number = kind(text)
        except ValueError as error:
            raise OutOfRange(f"give a number from {low} to {high}") from error
        if not low <= number <= high:
            raise OutOfRange(f"give a number from {low} to {high}")
        return number

    return read


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if not all(1 <= size <= 1_000_000 for size in sizes):
        raise ValueError("sizes are between 1 and 1000000")
    return sizes


def family(text: str) -> int:
    """The reader of an address family: 4 or 6."""
    return {"4": 4, "6": 6}[text]


def switch(text: str) -> object:
    """The reader of on and off."""
    return _WORDS[text.lower()]


def _congestion(text: str) -> object:
    if not text.isidentifier():
        raise ValueError("no name of a congestion control")
    return text


_MILLISECONDS = within(0, 10_000, float)
#: For each field of a shape what reads it, and what to say where it cannot.
READERS: dict[str, Callable[[str], object]] = {
    "pings": within(1, 64, int),
    "pongs": within(1, 64, int),
    "sizes": _sizes,
    "answer": within(1, 1_000_000, int),
    "rounds": within(1, 100_000, int),
    "latency": _MILLISECONDS,
    "pause": _MILLISECONDS,
    "rest": _MILLISECONDS,
    "read_pause": _MILLISECONDS,
    "nagle": switch,
    "server_nagle": switch,
    "drain": switch,
    "reconnect": switch,
    "receive_buffer": within(0, 1 << 28, int),
    "pacing": within(0, 1 << 31, int),
    "congestion": _congestion,
    "backlog": within(0, 4096, int),
    "accept_rest": _MILLISECONDS,
    "crowd": within(0, 64, int),
    "http": switch,
    "family": family,
    "port": within(1, 65534, int),
}
HINTS = {
    **{key: "say on or off" for key, reader in READERS.items() if reader is switch},
    **{key: "give milliseconds up to 10000" for key, reader in READERS.items() if reader is _MILLISECONDS},
    "family": "say 4 or 6",
    "sizes": "give bytes, for example 100,200",
    "congestion": "name one of /proc/sys/net/ipv4/tcp_available_congestion_control",
    "port": "give a port from 1 to 65534",
}
assert set(READERS) == {field.name for field in fields(Shape)}
