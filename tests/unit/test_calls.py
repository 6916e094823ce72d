"""Calls of programs: two ends are put together, and a bypass is judged by what they tell."""

from __future__ import annotations

import numpy as np
import pytest

from ackward.capture.calls import paired
from ackward.capture.calls_layout import CALL_END
from ackward.model.load import Counters
from ackward.model.verdict import Guard, GuardState
from ackward.verify.guards import Windows, Work, guards_of_work

LAST = (1 << 32) - 1


def ends(*numbers: tuple[int, int]) -> np.ndarray:
    made = np.zeros(len(numbers), CALL_END)
    made["own"], made["peer"] = [own & LAST for own, _ in numbers], [peer & LAST for _, peer in numbers]
    return made


def connection(client: int, server: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """What both ends know of initial sequence numbers: that of the client first."""
    return (client, server + 1), (server + 1, client + 1)


@pytest.mark.parametrize(("client", "server"), [(5, 9), (LAST, 7), (7, LAST), (LAST, LAST), (0, 0)])
def test_two_ends_of_a_connection_find_each_other_and_who_asked(client: int, server: int) -> None:
    one, other = connection(client, server)
    clients, servers = paired(ends((1000, 2000), other, one, (3000, 4000)))
    assert (clients.tolist(), servers.tolist()) == ([2], [1])


def test_alone_or_not_alone_enough_nobody_is_paired() -> None:
    one, other = connection(5, 9)
    for seen in ((), (one,), (other,), (one, other, other)):
        clients, servers = paired(ends(*seen))
        assert (len(clients), len(servers)) == (0, 0)


def phase(
    *, exchanges: float = 1000, kb: float = 500, failed: float = 0, cores: float = 0.2, seed: int = 0
) -> tuple[Windows, Work]:
    """Twenty windows of a second."""
    noise = 1 + 0.1 * np.random.default_rng(seed).standard_normal((20, 4))
    rates = noise * np.array([exchanges, kb * 1e3, failed, cores * 1e9])
    busy = np.concatenate([[0], rates[:, 3].cumsum()])
    readings = [Counters(second * 10**9, 0, 0, 0, 0, int(kernel_ns)) for second, kernel_ns in enumerate(busy)]
    return Windows.of(readings), Work(rates[:, 0], rates[:, 1], rates[:, 2])


def said(name: str, **after: float) -> Guard:
    (windows, work), (windows_after, work_after) = phase(), phase(seed=1, **after)
    found = guards_of_work(windows, windows_after, (work, work_after), {}, {})
    return next(guard for guard in found if guard.name == name)


@pytest.mark.parametrize(
    ("name", "harmless", "harmful", "words"),
    [
        ("failures", {"failed": 0.5}, {"failed": 5}, "limit 0.1% more"),
        ("throughput", {"kb": 400}, {"kb": 250}, "limit 1.5 times less"),
        ("cpu", {"cores": 0.28}, {"cores": 0.4}, "limit 1.5 times"),
        # Three times the requests for twice the time in the kernel is no harm.
        ("cpu", {"exchanges": 3000, "cores": 0.4}, {"exchanges": 500, "cores": 0.32}, "for each request"),
    ],
)
def test_a_guard_speaks_beyond_its_limit_for_the_same_work(
    name: str, harmless: dict[str, float], harmful: dict[str, float], words: str
) -> None:
    assert said(name, **harmless).state is GuardState.FINE
    guard = said(name, **harmful)
    assert guard.state is GuardState.HARMED
    assert words in guard.words


def test_without_work_nothing_is_said() -> None:
    for name in ("failures", "cpu"):
        assert said(name, exchanges=0.0).state is GuardState.SILENT


def test_other_services_are_compared_each_by_itself() -> None:
    windows, work = phase()
    quick, slow = np.full(100, 40_000), np.full(100, 140_000)
    found = guards_of_work(windows, windows, (work, work), {"a:1": quick}, {"a:1": slow})
    assert found[-1].state is GuardState.HARMED  # 100 us more of each exchange
    found = guards_of_work(windows, windows, (work, work), {"a:1": quick}, {"a:1": 2 * quick})
    assert found[-1].state is GuardState.FINE  # 40 us are nothing that a user notices
