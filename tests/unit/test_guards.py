"""Guards against harm: they speak beyond their limits, and neither for noise nor from too little data."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ackward.model.load import Counters
from ackward.model.verdict import Guard, GuardState, Result
from ackward.verify.compare import compare
from ackward.verify.guards import LEAST_EXCHANGES, LEAST_WINDOWS, Windows, guards, judged

MS = 1_000_000


def phase(
    *,
    windows: int = 20,
    received: float = 1000,
    acks: float = 500,
    data: float = 1000,
    lost: float = 0,
    cores: float = 0.2,
    noise: float = 0.1,
    seed: int = 0,
) -> Windows:
    """A phase of windows of a second; figures a second, each window off by ``noise`` of them."""
    generator = np.random.default_rng(seed)
    rates = np.array([acks, received, data, lost, cores * 1e9])
    growth = (rates * (1 + noise * generator.standard_normal((windows, 5)))).clip(0)
    sums = np.vstack([np.zeros(5), growth.cumsum(axis=0)]).astype(int)
    return Windows.of([Counters(at * 1_000_000_000, *map(int, row)) for at, row in enumerate(sums)])


def said(before: Windows, after: Windows, name: str) -> Guard:
    return next(guard for guard in guards(before, after, {}, {}) if guard.name == name)


def times(median_ms: float, count: int = 200, seed: int = 0) -> NDArray[np.int64]:
    generator = np.random.default_rng(seed)
    return (median_ms * MS * generator.lognormal(0, 0.3, count)).astype(np.int64)


def test_the_same_again_harms_nothing() -> None:
    for seed in range(50):
        found = guards(
            phase(seed=seed, noise=0.3),
            phase(seed=seed + 1000, noise=0.3),
            {"a:1": times(5, seed=seed)},
            {"a:1": times(5, seed=seed + 1000)},
        )
        assert {guard.state for guard in found} == {GuardState.FINE}, seed


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("acks", {"acks": 3000, "received": 2000}, "limit 0.75 more"),
        ("retransmissions", {"lost": 30}, "limit 1% more"),
        ("cpu", {"cores": 0.6}, "limit 1.5 times"),
    ],
)
def test_a_guard_speaks_beyond_its_limit_and_says_by_how_much(
    name: str, change: dict[str, float], words: str
) -> None:
    guard = said(phase(acks=100), phase(**({"acks": 100.0} | change)), name)
    assert guard.state is GuardState.HARMED
    assert words in guard.words
    assert guard.before is not None
    assert guard.after is not None
    assert guard.before < guard.after
    # The others have nothing to say about it.
    others = [
        one
        for one in guards(phase(acks=100), phase(**({"acks": 100.0} | change)), {}, {})
        if one.name != name
    ]
    assert GuardState.HARMED not in {one.state for one in others}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("acks", {"acks": 1000}),  # each segment acknowledged: what quickack is for
        ("acks", {"acks": 900, "received": 300, "data": 300}),  # all of them, but few
        ("retransmissions", {"lost": 8}),
        ("cpu", {"cores": 0.26}),
        (
            "cpu",
            {"cores": 5, "data": 100_000, "received": 100_000, "acks": 50_000},
        ),  # more work, not more a piece
    ],
)
def test_a_guard_is_silent_within_its_limit(name: str, change: dict[str, float]) -> None:
    assert said(phase(), phase(**change), name).state is GuardState.FINE


def test_a_burst_in_one_window_is_no_harm() -> None:
    """Three hundred segments sent again at one moment: 1.5 % of all, but nothing that lasts."""
    burst = phase()
    burst.retransmitted[3] = 300
    assert said(phase(), burst, "retransmissions").state is GuardState.FINE


@pytest.mark.parametrize("change", [{"windows": LEAST_WINDOWS - 1}, {"data": 1, "received": 1, "acks": 1}])
def test_too_little_data_is_said(change: dict[str, float]) -> None:
    harmful = {"acks": 5000.0, "lost": 500.0, "cores": 4.0} | change
    for before, after in ((phase(**change), phase(**harmful)), (phase(), phase(**harmful))):  # type: ignore[arg-type]
        found = guards(before, after, {}, {})
        assert {guard.state for guard in found} == {GuardState.SILENT}
        assert None in (found[0].before, found[0].after)


class TestLatency:
    """Each other service by itself."""

    def guard(self, before: dict[str, NDArray[np.int64]], after: dict[str, NDArray[np.int64]]) -> Guard:
        return guards(phase(), phase(), before, after)[-1]

    def test_one_that_got_slower_is_named_among_many(self) -> None:
        before = {f"10.0.0.{n}:80": times(5, seed=n) for n in range(20)}
        after = {name: times(5, seed=99) for name in before} | {"10.0.0.7:80": times(10)}
        guard = self.guard(before, after)
        assert guard.state is GuardState.HARMED
        assert "10.0.0.7:80" in guard.words
        assert "times; limit 1.5 times" in guard.words

    def test_a_mixture_that_moves_is_no_harm(self) -> None:
        """The median of all goes from 1 ms to 50 ms because the slow service has more to do."""
        fast, slow = times(1, 900), times(50, 900)
        guard = self.guard({"fast": fast, "slow": slow[:100]}, {"fast": fast[:100], "slow": slow})
        assert guard.state is GuardState.FINE

    def test_what_is_fast_stays_fast(self) -> None:
        assert self.guard({"a": times(0.05)}, {"a": times(0.3)}).state is GuardState.FINE

    def test_few_exchanges_say_nothing(self) -> None:
        few = LEAST_EXCHANGES - 1
        assert self.guard({"a": times(1)}, {"a": times(100, few)}).state is GuardState.SILENT
        assert self.guard({"a": times(1)}, {"b": times(100)}).state is GuardState.SILENT
        assert self.guard({}, {}).state is GuardState.SILENT


def test_harm_makes_the_verdict_worse_and_is_in_its_words() -> None:
    better = compare(times(44), times(0.1))
    assert better.result is Result.IMPROVED
    fine = judged(better, guards(phase(), phase(), {}, {}))
    assert fine.result is Result.IMPROVED
    assert fine.words == better.words
    assert len(fine.guards) == 4
    harmed = judged(better, guards(phase(), phase(lost=50), {}, {}))
    assert harmed.result is Result.WORSE
    assert harmed.words.startswith(better.words)
    assert "But it harms: segments sent again" in harmed.words
