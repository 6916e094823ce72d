"""One phase of a proof: what is measured, and the host's counters beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ackward.errors import Refused
from ackward.kernel.counters import CounterFiles
from ackward.model.load import Counters
from ackward.model.plan import Plan
from ackward.model.report import Report
from ackward.model.verdict import Phase
from ackward.remedies.transaction import find
from ackward.verify.compare import measure
from ackward.verify.guards import Windows, Work

#: Windows of a phase: enough to see how they differ...
WINDOWS = 20
#: ...but not so short that the processors' clock, which counts in hundredths of a second, is too coarse.
SHORTEST_WINDOW = 0.25


@dataclass(frozen=True)
class Measured:
    """One phase: the scope's own exchanges, those of each other service, and what the host did.

    ``work``: what programs did, where segments do not tell.
    """

    report: Report
    elapsed: NDArray[np.int64]
    others: dict[str, NDArray[np.int64]]
    windows: Windows
    work: Work | None = None

    def phase(self, name: str) -> Phase:
        """As it is published."""
        return Phase(name=name, measure=measure(self.elapsed), report=self.report, load=self.windows.load)


@contextmanager
def counted_windows(plan: Plan, seconds: float) -> Iterator[list[Counters]]:
    """Readings of the namespace's counters, one at the end of each window, while the body runs."""
    namespace = find(plan.namespace)
    if namespace is None:
        raise Refused(
            f"the namespace {plan.namespace.name} is gone",
            consequence="nothing was measured",
            next_step="plan again where its programs run now: `ip netns` lists those that have names",
        )
    ended = threading.Event()
    readings: list[Counters] = []

    def read_on() -> None:
        readings.append(files.read())
        while not ended.wait(max(seconds / WINDOWS, SHORTEST_WINDOW)):
            readings.append(files.read())

    with CounterFiles(namespace) as files:
        thread = threading.Thread(target=read_on, name="counters")
        thread.start()
        try:
            yield readings
        finally:
            ended.set()
            thread.join()
