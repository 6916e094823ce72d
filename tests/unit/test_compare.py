"""The verdict: improved only if it surely is, worse only if it surely is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ackward.model.verdict import Result
from ackward.verify.compare import compare, measure

MS = 1_000_000


def sample(median_ms, count=60, spread=0.1, seed=0):
    noise = np.random.default_rng(seed).normal(1, spread, count).clip(0.1)
    return (median_ms * MS * noise).astype(np.int64)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (44, 0.05, Result.IMPROVED),
        (0.05, 44, Result.WORSE),
        (44, 43.9, Result.UNCHANGED),
        (0.060, 0.030, Result.UNCHANGED),  # half, but 30 us: two runs differ by that
        (10, 8, Result.IMPROVED),
    ],
)
def test_verdicts(before, after, expected):
    verdict = compare(sample(before), sample(after, seed=1))
    assert verdict.result is expected
    assert verdict.ratio_low <= verdict.ratio <= verdict.ratio_high


def test_few_rounds_give_no_verdict_for_a_small_effect():
    assert compare(sample(10, 4, 0.5), sample(8, 4, 0.5, seed=1)).result is Result.UNCHANGED


@settings(deadline=None, max_examples=20)
@given(st.floats(0.1, 100), st.integers(5, 80), st.integers(0, 1000))
def test_the_same_load_twice_is_unchanged(median_ms, count, seed):
    """No false alarm from noise of 2 %, whatever the scale."""
    assert (
        compare(sample(median_ms, count, 0.02, seed), sample(median_ms, count, 0.02, seed + 1)).result
        is Result.UNCHANGED
    )


def test_swapping_before_and_after_swaps_the_verdict():
    low, high = sample(1), sample(5, seed=1)
    assert compare(high, low).result is Result.IMPROVED
    assert compare(low, high).result is Result.WORSE


def test_measure_counts_slow_rounds():
    seen = measure(np.array([10 * MS, 29 * MS, 31 * MS, 44 * MS]))
    assert (seen.rounds, seen.slow, seen.p50_ns) == (4, 2, 29 * MS)


def test_one_round_is_enough_to_print():
    assert compare(np.array([44 * MS]), np.array([1 * MS])).result is Result.IMPROVED
