"""Where segments are collected while their number is not known: in large blocks that the system takes back at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ackward.model.segments import WIRE_SEGMENT

#: Segments in a block of 57 MiB: larger than anything that malloc keeps for itself (glibc:
#: DEFAULT_MMAP_THRESHOLD_MAX), so that a block's memory is returned when it is dropped, and untouched memory
#: is no memory.
BLOCK = 1 << 20


class Rows:
    """Segments in the order in which they were added."""

    def __init__(self) -> None:
        self.count = 0
        self._blocks: list[NDArray[Any]] = []
        self._used: list[int] = []

    def room(self, count: int) -> NDArray[Any]:
        """The next ``count`` segments, all zero, to be filled in by the caller."""
        if not self._blocks or self._used[-1] + count > len(self._blocks[-1]):
            self._blocks.append(np.zeros(max(BLOCK, count), WIRE_SEGMENT))
            self._used.append(0)
        begin = self._used[-1]
        self._used[-1] += count
        self.count += count
        return self._blocks[-1][begin : begin + count]

    def column(self, name: str) -> NDArray[Any]:
        """One field of all segments."""
        blocks = zip(self._blocks, self._used, strict=True)
        return np.concatenate(
            [np.zeros(0, WIRE_SEGMENT)[name], *(block[name][:used] for block, used in blocks)]
        )

    def taken(self, order: NDArray[np.int64]) -> NDArray[Any]:
        """All segments in this order. They are held only once: each block is let go when it was copied."""
        place = np.empty(self.count, np.int64)
        place[order] = np.arange(self.count)
        whole = np.empty(self.count, WIRE_SEGMENT)
        # Without their fields: rows with fields are copied field by field, ten times as slow.
        rows = whole.view(f"V{WIRE_SEGMENT.itemsize}")
        begin = 0
        self._blocks.reverse()
        for used in self._used:
            rows[place[begin : begin + used]] = self._blocks.pop()[:used].view(rows.dtype)
            begin += used
        return whole
