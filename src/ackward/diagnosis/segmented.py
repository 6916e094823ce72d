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
    counted = values > NEVER if where is None else where & (values > NEVER)
    rows = np.flatnonzero(counted)
    if not len(rows):
        return np.full(len(values), NEVER)
    of = group[rows]
    # Lifting each group above the one before it lets one pass over the whole array respect the groups.
    lifted, lift, distinct = _lifted(np.cumsum(starts(of)) - 1, values[rows].astype(np.int64, copy=False))
    best: Ints = np.maximum.accumulate(lifted) - lift
    if distinct is not None:
        best = distinct[best]
    if inclusive and len(rows) == len(values):
        return best
    latest = _counted_so_far(counted, inclusive=inclusive) - 1
    result: Ints = best.take(latest, mode="clip")
    result[of.take(latest, mode="clip") != group] = NEVER
    result[: rows[0] + (not inclusive)] = NEVER
    return result


def _counted_so_far(counted: Bools, *, inclusive: bool) -> NDArray[np.int32]:
    """How many rows are counted up to each row; ``inclusive`` counts the row itself.

    Walking through an index of the counted rows by this number is several times faster than a running maximum of
    row numbers.
    """
    assert len(counted) < 1 << 31
    number = np.cumsum(counted, dtype=np.int32)
    return number if inclusive else number - counted


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
    rows = np.flatnonzero(where)
    if not len(rows):
        return np.full(len(begins), -1)
    before: Ints = rows.take(_counted_so_far(where, inclusive=False) - 1, mode="clip")
    before[before < begins] = -1
    before[: rows[0] + 1] = -1
    return before


def next_index(ends: Ints, where: Bools) -> Ints:
    """For each row the nearest later row of its group where ``where`` holds, else -1.

    ``ends`` are the group's :func:`group_ends`.
    """
    rows = np.flatnonzero(where)
    if not len(rows):
        return np.full(len(ends), -1)
    after: Ints = rows.take(_counted_so_far(where, inclusive=True), mode="clip")
    after[after > ends] = -1
    after[rows[-1] :] = -1
    return after


def in_order(number: Ints, value: Ints) -> Ints:
    """Numbers that compare as pairs of ``number`` (from 0) and ``value`` do."""
    return _lifted(number, value)[0]


def _lifted(number: Ints, value: Ints) -> tuple[Ints, Ints, Ints | None]:
    """Values such that those of a group lie above all of the groups before it; and by how much each was lifted.

    Where 62 bits cannot hold that, it is done with the ranks of the values: then these are given back too.
    """
    if not len(value):
        return value, value, None
    groups, low = int(number.max()) + 1, int(value.min())
    span = int(value.max()) - low + 1
    if groups * span < 1 << 62:
        lift: Ints = number * span - low
        return value + lift, lift, None
    distinct, rank = np.unique(value, return_inverse=True)
    lift = number * len(distinct)
    return rank + lift, lift, distinct


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
