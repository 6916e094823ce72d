"""Prove: measure, apply, measure again; keep the remedy only if it helped and harmed nothing else."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ackward import remedies
from ackward.diagnosis.counted import counted
from ackward.diagnosis.diagnose import Diagnosis
from ackward.errors import Refused, UsageError, VerificationFailed
from ackward.loop.calls_meter import CallMeter, Say
from ackward.loop.fixing import lasting
from ackward.loop.phases import Measured, counted_windows
from ackward.loop.reach import Reaches, reached_by
from ackward.loop.watching import watch
from ackward.model.plan import Lasting, Plan, Receipt
from ackward.model.proof import Proof
from ackward.model.scopes import BypassScope
from ackward.model.verdict import Result, Verdict
from ackward.remedies.lasting.persistence import request_of
from ackward.remedies.receipts import Receipts
from ackward.verify.compare import compare
from ackward.verify.guards import Windows, guards, judged

#: Seconds beyond what is measured after which an unproven remedy goes by itself, if this process was killed.
_GRACE = 60


class Meter(Protocol):
    """How a phase is measured, and what two of them say."""

    def measured(self, when: str) -> Measured:
        """Measure one phase; raises :class:`VerificationFailed` if there was nothing to measure."""

    def settle(self, receipt: Receipt, say: Say) -> None:
        """Wait until what was applied has reached something; raises :class:`VerificationFailed` if nothing."""

    def verdict(self, before: Measured, after: Measured, receipt: Receipt, /) -> Verdict:
        """What they say, while it is in force."""


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
        raise UsageError(
            f"a proof of {seconds:g} s measures nothing",
            consequence="nothing was changed",
            next_step="name a longer time: 30s",
        )
    _require_a_before(plan, store)
    if persist:
        request_of(plan, store.systemd)  # what cannot be kept in the end is refused before it is measured
    meter = _meter(plan, seconds, stop)
    say(f"measuring {seconds:g} s before")
    before = meter.measured("before")
    remedy = remedies.load(plan.remedy)
    receipt = remedy.apply(plan, store, Lasting(lease_ns=round((2 * seconds + _GRACE) * 1e9)))
    assert receipt is not None
    kept = None
    try:
        say(f"applied {receipt.id}")
        meter.settle(receipt, say)
        say(f"measuring {seconds:g} s after")
        after = meter.measured("after")
        verdict = meter.verdict(before, after, receipt)
        if verdict.result is Result.IMPROVED:
            kept = remedy.relast(receipt, plan, store, wanted)
    finally:
        # Somebody else may have taken it back meanwhile.
        if kept is None and store.find(plan.remedy, plan.namespace, plan.scope):
            say(f"undoing {receipt.id}")
            remedy.undo(receipt, store)
    return Proof(
        plan=plan, receipt=kept, verdict=verdict, phases=(before.phase("before"), after.phase("after"))
    )


def _require_a_before(plan: Plan, store: Receipts) -> None:
    """Raise :class:`Refused` where it is so already, by a receipt of ours or by what somebody set."""
    consequence = "there is no before to compare with; nothing was changed"
    if receipt := store.find(plan.remedy, plan.namespace, plan.scope):
        raise Refused(
            f"{plan.remedy} for {plan.scope.words} is in force already: receipt {receipt.id}",
            consequence=consequence,
            next_step=f"take it back with `ackward undo {receipt.id}`, then prove it",
        )
    if not plan.changes:
        raise Refused(
            f"{plan.remedy} for {plan.scope.words} would change nothing: {plan.notes[0]}",
            consequence=consequence,
            next_step="look in `ackward status` for another receipt that set it; without one it is not ours to undo",
        )


def _meter(plan: Plan, seconds: float, stop: threading.Event | None) -> Meter:
    if isinstance(plan.scope, BypassScope):
        return CallMeter(plan, plan.scope, seconds, stop or threading.Event())
    return SegmentMeter(plan, seconds, stop)


@dataclass(frozen=True)
class SegmentMeter:
    """Watches the whole namespace: what the scope reaches is measured, the rest is guarded.

    Other namespaces meet the remedy through the processors alone, and these have a guard.
    """

    plan: Plan
    seconds: float
    stop: threading.Event | None

    def measured(self, when: str) -> Measured:
        """The exchanges as the recorder saw them."""
        reaches = reached_by(self.plan)
        with counted_windows(self.plan, self.seconds) as readings:
            seen = watch(self.seconds, netns=self.plan.namespace.path, stop=self.stop)
        own, others = _split(seen, reaches)
        if not np.any(own):
            raise VerificationFailed(
                f"no request was seen in {self.seconds:g} s {when}",
                consequence="there is nothing to compare; nothing is left changed",
                next_step="let the service work meanwhile, or name a longer time",
            )
        return Measured(seen.report, own, others, Windows.of(readings))

    def settle(self, receipt: Receipt, say: Say) -> None:
        """Open connections obey at once."""

    def verdict(self, before: Measured, after: Measured, _: Receipt, /) -> Verdict:
        """Medians and guards."""
        found = guards(before.windows, after.windows, before.others, after.others)
        return judged(compare(before.elapsed, after.elapsed), found)


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
