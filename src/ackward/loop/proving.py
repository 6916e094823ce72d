"""Prove: measure, apply, measure again; keep the remedy only if it helped and harmed nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ackward import remedies
from ackward.diagnosis.counted import counted
from ackward.diagnosis.diagnose import Diagnosis
from ackward.errors import Refused, UsageError, VerificationFailed
from ackward.kernel.counters import CounterFiles
from ackward.loop.fixing import lasting
from ackward.loop.reach import Reaches, reached_by
from ackward.loop.watching import watch
from ackward.model.load import Counters
from ackward.model.plan import Lasting, Plan
from ackward.model.proof import Proof
from ackward.model.report import Report
from ackward.model.verdict import Phase, Result, Verdict
from ackward.remedies.lasting.persistence import request_of
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import find
from ackward.verify.compare import compare, measure
from ackward.verify.guards import Windows, guards, judged

#: Windows of a phase: enough to see how they differ...
WINDOWS = 20
#: ...but not so short that the processors' clock, which counts in hundredths of a second, is too coarse.
SHORTEST_WINDOW = 0.25
#: Seconds beyond both phases after which an unproven remedy goes by itself, if this process was killed.
_GRACE = 60

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Measured:
    """One phase: the scope's own exchanges, those of each other service, and what the host did."""

    report: Report
    elapsed: NDArray[np.int64]
    others: dict[str, NDArray[np.int64]]
    windows: Windows

    def phase(self, name: str) -> Phase:
        return Phase(name=name, measure=measure(self.elapsed), report=self.report, load=self.windows.load)


def prove(
    plan: Plan,
    seconds: float,
    *,
    lease: float | None = None,
    persist: bool = False,
    say: Say = lambda _: None,
    stop: threading.Event | None = None,
) -> Proof:
    """Measure for ``seconds``, apply, measure again; undone unless it improved, also if anything goes wrong.

    Until it is proven the remedy has a lease, so it does not stay if this process is killed; then it lasts as for
    :func:`ackward.apply`. Raises :class:`Refused` if the remedy is in force already, :class:`VerificationFailed` if
    there was no traffic.
    """
    wanted = lasting(lease=lease, persist=persist)
    store = Receipts()
    if not seconds > 0:
        raise UsageError(f"a proof of {seconds:g} s measures nothing", next_step="name a longer time: 30s")
    if store.find(plan.remedy, plan.namespace, plan.scope) or not plan.changes:
        raise Refused(
            f"{plan.remedy} for {plan.scope.words} is in force already",
            consequence="there is no before to compare with; nothing was changed",
            next_step="take it back with `ackward undo --all`, then prove it",
        )
    if persist:
        request_of(plan, store.systemd)  # what cannot be kept in the end is refused before it is measured
    say(f"measuring {seconds:g} s before")
    before = _measured(plan, seconds, "before", stop)
    remedy = remedies.load(plan.remedy)
    receipt = remedy.apply(plan, store, Lasting(lease_ns=round((seconds + _GRACE) * 1e9)))
    assert receipt is not None
    kept = None
    try:
        say(f"applied {receipt.id}; measuring {seconds:g} s after")
        after = _measured(plan, seconds, "after", stop)
        verdict = _verdict(before, after)
        if verdict.result is Result.IMPROVED:
            kept = remedy.relast(receipt, plan, store, wanted)
    finally:
        if kept is None:
            say(f"undoing {receipt.id}")
            remedy.undo(receipt, store)
    return Proof(
        plan=plan, receipt=kept, verdict=verdict, phases=(before.phase("before"), after.phase("after"))
    )


def _verdict(before: _Measured, after: _Measured) -> Verdict:
    found = guards(before.windows, after.windows, before.others, after.others)
    return judged(compare(before.elapsed, after.elapsed), found)


def _measured(plan: Plan, seconds: float, when: str, stop: threading.Event | None) -> _Measured:
    """Watch the whole namespace: what the scope reaches is measured, the rest is guarded.

    Other namespaces meet the remedy through the processors alone, and these have a guard.
    """
    reaches = reached_by(plan)
    with _counted(plan, seconds) as readings:
        seen = watch(seconds, netns=plan.namespace.path, stop=stop)
    own, others = _split(seen, reaches)
    if not np.any(own):
        raise VerificationFailed(
            f"no request was seen in {seconds:g} s {when}",
            consequence="there is nothing to compare; nothing is left changed",
            next_step="let the service work meanwhile, or name a longer time",
        )
    return _Measured(seen.report, own, others, Windows.of(readings))


def _split(seen: Diagnosis, reaches: Reaches) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """The times of the exchanges that the scope reaches, and of the others by service."""
    flows = seen.attribution.traffic.flows
    if not flows:
        return seen.elapsed, {}
    fast = [counted(flow).exchanges for flow in flows]
    flow_of = np.concatenate([seen.attribution.exchanges.flow_of, np.repeat(np.arange(len(flows)), fast)])
    own = np.array([reaches(flow) for flow in flows], bool)
    services = {str(flow.server): number for number, flow in enumerate(flows)}
    service_of = np.array([services[str(flow.server)] for flow in flows])[flow_of]
    other = ~own[flow_of]
    order = np.argsort(service_of[other], kind="stable")
    numbers, begins = np.unique(service_of[other][order], return_index=True)
    groups = np.split(seen.elapsed[other][order], begins[1:]) if len(numbers) else []
    names = [str(flows[number].server) for number in numbers.tolist()]
    return seen.elapsed[~other], dict(zip(names, groups, strict=True))


@contextmanager
def _counted(plan: Plan, seconds: float) -> Iterator[list[Counters]]:
    """Readings of the namespace's counters, one at the end of each window, while the body runs."""
    namespace = find(plan.namespace)
    if namespace is None:
        raise Refused(f"the namespace {plan.namespace.name} is gone", consequence="nothing was measured")
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
