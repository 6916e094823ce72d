"""All flows with their rows, a stretch of flows at a time.

A stretch fits a processor's cache, so it is worked through faster than the whole; and what is worked out of it goes
again, so memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from ackward.diagnosis.exchanges import Timeline, cut
from ackward.diagnosis.flows import Flows
from ackward.diagnosis.segmented import Ints
from ackward.model.segments import Segments

#: Rows of a stretch: a column of them takes 512 kB. Four times as many take a tenth longer, all at once twice as long.
STRETCH = 1 << 16


@dataclass(frozen=True)
class Traffic:
    """Flows, and what gives the rows of some: ``rows(first, beyond)`` is in order of flow and time.

    ``begins`` has an entry a flow and one more: where its rows begin in the order of all. The rows of a stretch number
    its flows from 0.
    """

    flows: Flows
    begins: Ints
    rows: Callable[[int, int], Segments]

    @classmethod
    def of(cls, flows: Flows, segments: Segments) -> Self:
        """From the rows of all flows at once."""
        begins = np.searchsorted(segments["flow"], np.arange(len(flows) + 1))

        def rows(first: int, beyond: int) -> Segments:
            stretch: Segments = segments[begins[first] : begins[beyond]].copy()
            stretch["flow"] -= first
            return stretch

        return cls(flows, begins, rows)

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self.begins[-1])

    def stretches(self) -> Iterator[tuple[int, int]]:
        """The flows of each stretch: the first, and the one beyond the last. There is one even without any flow."""
        first, count = 0, len(self.flows)
        while True:
            fitting = int(np.searchsorted(self.begins, self.begins[first] + STRETCH, side="right")) - 1
            beyond = min(max(fitting, first + 1), count)
            yield first, beyond
            if beyond >= count:
                return
            first = beyond

    def timeline(self, first: int, beyond: int) -> Timeline:
        """The rows of a stretch, cut into exchanges; both number its flows from 0."""
        return cut(self.flows[first:beyond], self.rows(first, beyond))
