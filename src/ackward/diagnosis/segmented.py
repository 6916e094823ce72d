"""Running values within groups of a sorted array: the loops of the diagnosis, without the loops.

All functions take ``group``, an array that is sorted so that equal values are adjacent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Below any sequence number or time that occurs.
NEVER = np.int64(-(1 << 62))


def starts(group: NDArray[Any]) -> Bools:
    """Where a new group begins."""
    first = np.ones(len(group), bool)
    first[1:] = group[1:] != group[:-1]
    return first


def running_max(
    group: NDArray[Any], values: Ints, *, where: Bools | None = None, inclusive: bool = True
) -> Ints:
    """The largest of ``values`` so far in each group, over rows where ``where`` holds; NEVER before the first.

    ``inclusive`` counts the row itself.
    """
    if not len(values):
        return values.astype(np.int64)
    counted = values > NEVER if where is None else where & (values > NEVER)
    if not counted.any():
        return np.full(len(values), NEVER)
    low = np.int64(values[counted].min()) - 1
    span = np.int64(values[counted].max()) - low + 1
    first = starts(group)
    number = np.cumsum(first) - 1
    # Lifting each group above the one before it lets one pass over the whole array respect the groups.
    if int(number[-1] + 1) * int(span) >= 1 << 62:
        raise OverflowError(f"{number[-1] + 1} groups of values that span {span} do not fit 62 bits")
    lift = number * span
    best = np.maximum.accumulate(lift + np.where(counted, values - low, 0)) - lift
    best = np.where(best == 0, NEVER, best + low)
    if inclusive:
        return best
    shifted = np.empty_like(best)
    shifted[1:] = best[:-1]
    shifted[first] = NEVER
    return shifted


def group_starts(group: NDArray[Any]) -> Ints:
    """For each row the index of the first row of its group."""
    index = np.arange(len(group), dtype=np.int64)
    begins: Ints = np.maximum.accumulate(np.where(starts(group), index, 0)) if len(group) else index
    return begins


def group_ends(group: NDArray[Any]) -> Ints:
    """For each row the index of the last row of its group."""
    size = len(group)
    ends: Ints = size - 1 - group_starts(group[::-1])[::-1]
    return ends


def previous_index(begins: Ints, where: Bools) -> Ints:
    """For each row the nearest earlier row of its group where ``where`` holds, else -1.

    ``begins`` are the group's :func:`group_starts`.
    """
    if not len(begins):
        return begins
    index = np.arange(len(begins), dtype=np.int64)
    latest = np.maximum.accumulate(np.where(where, index, -1))
    before = np.empty_like(latest)
    before[0] = -1
    before[1:] = latest[:-1]
    return np.where(before >= begins, before, -1)


def next_index(ends: Ints, where: Bools) -> Ints:
    """For each row the nearest later row of its group where ``where`` holds, else -1.

    ``ends`` are the group's :func:`group_ends`.
    """
    size = len(ends)
    if not size:
        return ends
    index = np.arange(size, dtype=np.int64)
    soonest = np.minimum.accumulate(np.where(where, index, size)[::-1])[::-1]
    after = np.empty_like(soonest)
    after[-1] = size
    after[:-1] = soonest[1:]
    return np.where(after <= ends, after, -1)


def unwrap(group: NDArray[Any], numbers: NDArray[Any]) -> Ints:
    """Sequence numbers of 32 bits as 64-bit numbers that never wrap, starting at 0 in each group.

    Right as long as neighbours differ by less than 2^31, as TCP itself requires (RFC 9293 section 3.4).
    """
    if not len(numbers):
        return np.zeros(0, np.int64)
    steps = np.zeros(len(numbers), np.int64)
    steps[1:] = (numbers[1:].astype(np.int64) - numbers[:-1].astype(np.int64) + (1 << 31)) % (1 << 32) - (
        1 << 31
    )
    first = starts(group)
    steps[first] = 0
    total = np.cumsum(steps)
    relative: Ints = total - total[first][np.cumsum(first) - 1]
    return relative
