"""All flows with their rows, a stretch of flows at a time.

A stretch fits a processor's cache, so it is worked through faster than the whole; and what is worked out of it goes
again, so memory does not grow with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np

from ackward.diagnosis.columns import Columns
from ackward.diagnosis.exchanges import Timeline, cut
from ackward.diagnosis.flows import Flows
from ackward.diagnosis.segmented import Ints
from ackward.model.segments import Segments

#: Rows of a stretch: a column of them takes 1 MB. All at once take twice as long; half as many let two threads wait
#: for the interpreter's lock, which each step of NumPy gives up and wants back: a quarter longer.
STRETCH = 1 << 17
#: Beyond this many at once, stretches wait for memory instead of for a processor.
MOST_WORKERS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Traffic:
    """Flows, and what gives the rows of some: ``rows(first, beyond)`` is in order of flow and time.

    ``begins`` has an entry a flow and one more: where its rows begin in the order of all. The rows of a stretch number
    its flows from 0.
    """

    flows: Flows
    begins: Ints
    rows: Callable[[int, int], Columns]

    @classmethod
    def of(cls, flows: Flows, segments: Segments) -> Self:
        """From the rows of all flows at once."""
        begins = np.searchsorted(segments["flow"], np.arange(len(flows) + 1))

        def rows(first: int, beyond: int) -> Columns:
            stretch = segments[begins[first] : begins[beyond]].copy()
            stretch["flow"] -= first
            return Columns(stretch)

        return cls(flows, begins, rows)

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self.begins[-1])

    def stretches(self) -> Iterator[tuple[int, int]]:
        """The flows of each stretch: the first, and the one beyond the last. There is one even without any flow."""
        return stretches(self.begins)

    def timeline(self, first: int, beyond: int) -> Timeline:
        """The rows of a stretch, cut into exchanges; both number its flows from 0."""
        return cut(self.flows[first:beyond], self.rows(first, beyond))


def stretches(begins: Ints) -> Iterator[tuple[int, int]]:
    """Of flows whose rows begin there: the first one of each stretch, and the one beyond its last."""
    first, count = 0, len(begins) - 1
    while True:
        fitting = int(np.searchsorted(begins, begins[first] + STRETCH, side="right")) - 1
        beyond = min(max(fitting, first + 1), count)
        yield first, beyond
        if beyond >= count:
            return
        first = beyond


def each(work: Callable[[int, int], T], over: Iterable[tuple[int, int]]) -> list[T]:
    """What ``work`` makes of each stretch, as many at once as there are processors.

    NumPy lets other threads run while it works on arrays.
    """
    with ThreadPoolExecutor(_workers()) as pool:
        return list(pool.map(lambda stretch: work(*stretch), over))


def _workers() -> int:
    # Python 3.13 has os.process_cpu_count(); not every system tells which processors are ours.
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(mine, MOST_WORKERS)
