"""Bytes of a capture as NumPy sees them: any position can be read as a number, thousands of positions at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Positions and lengths, in bytes from the start of the chunk.
Positions = NDArray[np.int64]
#: Bytes behind the last octet that may be read (never believed): nothing that is read at once is longer.
SLACK = 2048


class Octets:
    """A buffer with a view per number format whose stride is one byte, so that ``u32[at]`` reads at any ``at``.

    Positions up to ``capacity`` may be read: the buffer ends ``SLACK`` bytes behind it. Whether what lies
    there belongs to the packet is the caller's business.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.raw: NDArray[np.uint8] = np.zeros(capacity + SLACK, np.uint8)
        self.u16 = self.view(">u2")
        self.u32 = self.view(">u4")
        self.u32_little = self.view("<u4")

    def view(self, dtype: str) -> NDArray[Any]:
        """The buffer as overlapping items of ``dtype``, one beginning at each byte."""
        return np.ndarray((self.capacity + 1,), dtype, self.raw.data, 0, (1,))

    def rows(self, at: Positions, width: int) -> NDArray[np.uint8]:
        """The ``width`` bytes at each position, one row each: a copy, a few nanoseconds a row."""
        assert width <= SLACK
        return self.view(f"V{width}")[at].view(np.uint8).reshape(len(at), width)

    def grown(self, capacity: int, kept: int) -> Octets:
        """A larger buffer with the first ``kept`` bytes of this one."""
        larger = Octets(capacity)
        larger.raw[:kept] = self.raw[:kept]
        return larger

    def windows(self, at: Positions, width: int, step: int, field: int, dtype: str) -> NDArray[Any]:
        """The numbers ``field`` bytes behind each ``step``-th of ``width`` bytes from each position, one row each."""
        size = width + field + np.dtype(dtype).itemsize
        rows = self.rows(at, size)
        return np.ndarray((len(at), width // step), dtype, rows.data, field, (size, step))


def column(rows: NDArray[np.uint8], offset: int, dtype: str) -> NDArray[Any]:
    """The number of format ``dtype`` at ``offset`` of each row, without a copy."""
    width = np.dtype(dtype).itemsize
    return rows[:, offset : offset + width].view(dtype)[:, 0]


def distinct(values: NDArray[Any]) -> list[int]:
    """The distinct numbers of a column that is almost always of one alone."""
    found = values[:1] if not len(values) or (values == values[0]).all() else np.unique(values)
    return [int(value) for value in found]
