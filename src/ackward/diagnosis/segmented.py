"""Running values within groups of a sorted array: the loops of the diagnosis, without the loops.

All functions take ``group``, an array that is sorted so that equal values are adjacent. Some give their values for
chosen rows ``at`` alone: few rows matter to any one cause, and what is cheap to tell leaves out most others beforehand.
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
    group: NDArray[Any],
    values: Ints,
    *,
    where: Bools | None = None,
    inclusive: bool = True,
    at: Ints | None = None,
) -> Ints:
    """The largest of ``values`` so far in each group, over rows where ``where`` holds; NEVER before the first.

    ``inclusive`` counts the row itself. ``at`` are the rows to tell it for, else all.
    """
    if at is not None and not len(at):
        return np.zeros(0, np.int64)
    counted = values > NEVER if where is None else where & (values > NEVER)
    rows = np.flatnonzero(counted)
    if not len(rows):
        return np.full(len(values if at is None else at), NEVER)
    of, best = group[rows], values[rows].astype(np.int64, copy=False)
    first = starts(of)
    # Mostly they only grow.
    if ((best[1:] < best[:-1]) & ~first[1:]).any():
        best = _highest_so_far(first, best)
    if at is None and inclusive and len(rows) == len(values):
        return best
    latest = _counted_so_far(counted, inclusive=inclusive, at=at) - 1
    result: Ints = best.take(latest, mode="clip")
    result[of.take(latest, mode="clip") != (group if at is None else group[at])] = NEVER
    result[slice(rows[0] + (not inclusive)) if at is None else latest < 0] = NEVER
    return result


def _highest_so_far(first: Bools, values: Ints) -> Ints:
    """The largest of the values so far in groups that begin where ``first`` holds."""
    # Lifting each group above the one before it lets one pass over the whole array respect the groups.
    lifted, lift, distinct = _lifted(np.cumsum(first) - 1, values)
    best: Ints = np.maximum.accumulate(lifted) - lift
    return best if distinct is None else distinct[best]


def _counted_so_far(counted: Bools, *, inclusive: bool, at: Ints | None) -> NDArray[np.int32]:
    """How many rows are counted up to each row (of ``at``, if given); ``inclusive`` counts the row itself.

    Walking through an index of the counted rows by this number is several times faster than a running maximum of
    row numbers.
    """
    assert len(counted) < 1 << 31
    number = np.cumsum(counted, dtype=np.int32)
    if at is not None:
        number, counted = number[at], counted[at]
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


def previous_index(begins: Ints, where: Bools, at: Ints | None = None) -> Ints:
    """For each row the nearest earlier row of its group where ``where`` holds, else -1.

    ``begins`` are the group's :func:`group_starts`. ``at`` are the rows to tell it for, else all.
    """
    if at is not None and not len(at):
        return np.zeros(0, np.int64)
    rows = np.flatnonzero(where)
    if not len(rows):
        return np.full(len(begins if at is None else at), -1)
    place = _counted_so_far(where, inclusive=False, at=at) - 1
    before: Ints = rows.take(place, mode="clip")
    before[before < (begins if at is None else begins[at])] = -1
    before[slice(rows[0] + 1) if at is None else place < 0] = -1
    return before


def next_index(ends: Ints, where: Bools, at: Ints | None = None) -> Ints:
    """For each row the nearest later row of its group where ``where`` holds, else -1.

    ``ends`` are the group's :func:`group_ends`. ``at`` are the rows to tell it for, else all.
    """
    if at is not None and not len(at):
        return np.zeros(0, np.int64)
    rows = np.flatnonzero(where)
    if not len(rows):
        return np.full(len(ends if at is None else at), -1)
    place = _counted_so_far(where, inclusive=True, at=at)
    after: Ints = rows.take(place, mode="clip")
    after[after > (ends if at is None else ends[at])] = -1
    after[slice(rows[-1], None) if at is None else place >= len(rows)] = -1
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


def unwrap(group: NDArray[Any], numbers: NDArray[np.uint32]) -> Ints:
    """Sequence numbers of 32 bits as 64-bit numbers that never wrap, starting at 0 in each group.

    Right as long as neighbours differ by less than 2^31, as TCP itself requires (RFC 9293 section 3.4).
    """
    if not len(numbers):
        return np.zeros(0, np.int64)
    steps = np.zeros(len(numbers), np.int64)
    steps[1:] = (numbers[1:] - numbers[:-1]).view(np.int32)
    first = starts(group)
    steps[first] = 0
    total = np.cumsum(steps)
    relative: Ints = total - total[first][np.cumsum(first) - 1]
    return relative
