"""Before and after: is it better, and how sure are we.

The effect is the ratio of the medians. Its confidence interval is a percentile bootstrap (Efron 1979): both samples are
drawn again with replacement, many times, and the ratio is taken each time. No shape of distribution is assumed, which
matters here: latencies with a stall in them have two humps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ackward.model.units import duration
from ackward.model.verdict import Measure, Result, Verdict

RESAMPLES = 2000
CONFIDENCE = 0.95
#: A change counts from here: two runs on one machine differ by less than this for no reason at all...
LEAST_RATIO = 0.10
#: ...and no user notices less than this.
LEAST_NS = 50_000
#: Rounds above this are called slow: no delayed-ACK timer of Linux is shorter than 40 ms (TCP_DELACK_MIN).
SLOW_NS = 30_000_000


def measure(latencies: NDArray[Any]) -> Measure:
    """The figures of one phase; latencies in nanoseconds."""
    return Measure(
        p50_ns=int(np.quantile(latencies, 0.5, method="inverted_cdf")),
        p99_ns=int(np.quantile(latencies, 0.99, method="inverted_cdf")),
        rounds=len(latencies),
        slow=int((latencies > SLOW_NS).sum()),
        slow_above_ns=SLOW_NS,
    )


def compare(before: NDArray[Any], after: NDArray[Any], *, least_ns: int = LEAST_NS) -> Verdict:
    """The verdict on two samples of latencies in nanoseconds, neither empty.

    Improved (or worse) only if the whole confidence interval lies beyond LEAST_RATIO and the medians differ by
    more than ``least_ns``.
    """
    generator = np.random.default_rng(seed=1)  # the same samples always get the same verdict
    ratios = _medians(generator, after) / np.maximum(_medians(generator, before), 1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    ratio = float(np.median(after) / max(float(np.median(before)), 1.0))
    gain = float(np.median(before) - np.median(after))
    if high < 1 - LEAST_RATIO and gain > least_ns:
        result = Result.IMPROVED
    elif low > 1 + LEAST_RATIO and -gain > least_ns:
        result = Result.WORSE
    else:
        result = Result.UNCHANGED
    first, second = measure(before), measure(after)
    return Verdict(
        result=result,
        before=first,
        after=second,
        ratio=ratio,
        ratio_low=float(low),
        ratio_high=float(high),
        confidence=CONFIDENCE,
        words=_words(result, first, second, ratio),
    )


def _medians(generator: np.random.Generator, sample: NDArray[Any]) -> NDArray[np.float64]:
    # A median of a few thousand is as good as one of millions, and the resamples must fit memory.
    size = min(len(sample), 5000)
    chunks = [np.median(generator.choice(sample, (50, size)), axis=1) for _ in range(RESAMPLES // 50)]
    medians: NDArray[np.float64] = np.concatenate(chunks)
    return medians


def _words(result: Result, before: Measure, after: Measure, ratio: float) -> str:
    median = f"Median {duration(before.p50_ns)} before, {duration(after.p50_ns)} after"
    if result is Result.IMPROVED:
        slow = f"slow rounds {before.slow} of {before.rounds} before, {after.slow} of {after.rounds} after"
        return f"{median} ({1 / max(ratio, 1e-9):,.1f} times faster); {slow}."
    if result is Result.WORSE:
        return f"{median} ({ratio:,.1f} times slower)."
    return f"{median}; the difference is within what two runs differ by anyway."
