"""The running values agree with plain loops, for any grouping."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ackward.diagnosis.segmented import (
    NEVER,
    group_ends,
    group_starts,
    in_order,
    next_index,
    previous_index,
    running_max,
    unwrap,
)

#: Small ones meet each other; large ones do not fit one number together with their group.
values = st.integers(-5, 5) | st.integers(-(2**62) + 1, 2**62 - 1)
rows = st.lists(st.tuples(st.integers(0, 3), values, st.booleans()), max_size=30)


def columns(data):
    data = sorted(data, key=lambda row: row[0])
    return (
        np.array([row[0] for row in data], np.int64),
        np.array([row[1] for row in data], np.int64),
        np.array([row[2] for row in data], bool),
    )


@given(rows, st.booleans())
def test_running_max_is_the_loop(data, inclusive):
    group, values, where = columns(data)
    expected = []
    for index in range(len(group)):
        until = index + 1 if inclusive else index
        seen = [values[i] for i in range(until) if group[i] == group[index] and where[i]]
        expected.append(max(seen, default=NEVER))
    assert running_max(group, values, where=where, inclusive=inclusive).tolist() == [int(v) for v in expected]


@given(rows)
def test_neighbours_are_the_loop(data):
    group, _, where = columns(data)
    size = range(len(group))
    before = [max((i for i in size if i < n and where[i] and group[i] == group[n]), default=-1) for n in size]
    after = [min((i for i in size if i > n and where[i] and group[i] == group[n]), default=-1) for n in size]
    assert previous_index(group_starts(group), where).tolist() == before
    assert next_index(group_ends(group), where).tolist() == after


@given(rows, st.booleans(), st.lists(st.integers(0, 29)))
def test_values_for_chosen_rows_are_those_of_all_rows(data, inclusive, chosen):
    group, values, where = columns(data)
    at = np.array([row for row in chosen if row < len(group)], np.int64)
    for some, everything in (
        (
            running_max(group, values, where=where, inclusive=inclusive, at=at),
            running_max(group, values, where=where, inclusive=inclusive),
        ),
        (
            running_max(group, values, inclusive=inclusive, at=at),
            running_max(group, values, inclusive=inclusive),
        ),
        (previous_index(group_starts(group), where, at), previous_index(group_starts(group), where)),
        (next_index(group_ends(group), where, at), next_index(group_ends(group), where)),
    ):
        assert some.tolist() == everything[at].tolist()


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(-(2**31) + 1, 2**31 - 1), max_size=20))
def test_unwrap_gives_back_any_walk_of_small_steps(start, steps):
    walk = np.cumsum([0, *steps])
    wire = (start + walk) % 2**32
    assert unwrap(np.zeros(len(wire)), wire.astype(np.uint32)).tolist() == walk.tolist()


def test_never_is_no_value():
    """A row without a value does not stretch the range of the others."""
    values = np.array([NEVER, 5, NEVER, 7])
    assert running_max(np.zeros(4), values).tolist() == [NEVER, 5, 5, 7]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-(2**62), 2**62 - 1)), max_size=30))
def test_pairs_in_order_compare_as_pairs(pairs):
    keys = in_order(*(np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))).tolist()
    for one, key in zip(pairs, keys, strict=True):
        for other, its in zip(pairs, keys, strict=True):
            assert (one < other) == (key < its)
