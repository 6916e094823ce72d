"""Fix and prove: apply a remedy, and measure whether it helped."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from ackward import remedies
from ackward.diagnosis.diagnose import Diagnosis
from ackward.errors import Refused, UsageError, VerificationFailed
from ackward.kernel.namespaces import in_sight, resolve
from ackward.loop.watching import watch
from ackward.model.plan import Plan, Receipt, Refusal, Status, UndoOutcome
from ackward.model.proof import Proof
from ackward.model.scopes import PortScope, RouteScope, Scope
from ackward.model.verdict import Phase, Result
from ackward.remedies.clearance import Cleared, undo_all
from ackward.remedies.receipts import Receipts
from ackward.verify.compare import compare, measure

Say = Callable[[str], None]


def quickack_scope(*, to: str | None = None, port: int | None = None) -> Scope:
    """The scope that the arguments ask for; raises :class:`UsageError`."""
    if port is None:
        return RouteScope(to=to)
    if to is not None:
        raise UsageError(
            "--to and --port exclude each other",
            consequence="nothing was changed",
            next_step="choose routes (--to) or a port (--port)",
        )
    if not 1 <= port <= 65535:
        raise UsageError(
            f"--port {port} is no TCP port",
            consequence="nothing was changed",
            next_step="name one of 1 to 65535",
        )
    return PortScope(port=port)


def plan_quickack(*, netns: str | None = None, to: str | None = None, port: int | None = None) -> Plan:
    """What ``fix quickack`` would change; raises :class:`Refused` with the reason if it should not."""
    found = remedies.load("quickack").plan(resolve(netns), quickack_scope(to=to, port=port))
    if isinstance(found, Refusal):
        raise found.as_error()
    return found


def apply(plan: Plan) -> Receipt | None:
    """Carry out a plan, all of it or nothing. None: there was nothing to change."""
    return remedies.load(plan.remedy).apply(plan, Receipts())


def status() -> list[Status]:
    """Each remedy as the kernel sees it now."""
    store = Receipts()
    return [remedies.load(receipt.remedy).status(receipt, store) for receipt in store.load().receipts]


def undo(*ids: str) -> list[UndoOutcome]:
    """Take back the receipts named."""
    store = Receipts()
    receipts = [store.get(receipt_id) for receipt_id in dict.fromkeys(ids)]
    return [remedies.load(receipt.remedy).undo(receipt, store) for receipt in receipts]


def undo_everything() -> Cleared:
    """Take back all receipts, and what is recognisably ours and has none."""
    return undo_all(Receipts(), in_sight())


def prove(
    plan: Plan, seconds: float, *, say: Say = lambda _: None, stop: threading.Event | None = None
) -> Proof:
    """Measure for ``seconds``, apply, measure again; undone unless it improved, also if anything goes wrong.

    Raises :class:`Refused` if the remedy is in force already, :class:`VerificationFailed` if there was no traffic.
    """
    store = Receipts()
    if store.find(plan.remedy, plan.namespace, plan.scope) or not plan.changes:
        raise Refused(
            f"{plan.remedy} for {plan.scope.words} is in force already",
            consequence="there is no before to compare with; nothing was changed",
            next_step="take it back with `ackward undo --all`, then prove it",
        )
    say(f"measuring {seconds:g} s before")
    before = _measured(plan, seconds, "before", stop)
    remedy = remedies.load(plan.remedy)
    receipt = remedy.apply(plan, store)
    assert receipt is not None
    kept = False
    try:
        say(f"applied {receipt.id}; measuring {seconds:g} s after")
        after = _measured(plan, seconds, "after", stop)
        verdict = compare(before.elapsed, after.elapsed)
        kept = verdict.result is Result.IMPROVED
    finally:
        if not kept:
            say(f"undoing {receipt.id}")
            remedy.undo(receipt, store)
    phases = tuple(
        Phase(name=name, measure=measure(seen.elapsed), report=seen.report)
        for name, seen in (("before", before), ("after", after))
    )
    return Proof(plan=plan, receipt=receipt if kept else None, verdict=verdict, phases=phases)


def _measured(plan: Plan, seconds: float, when: str, stop: threading.Event | None) -> Diagnosis:
    port = plan.scope.port if isinstance(plan.scope, PortScope) else None
    seen = watch(seconds, port=port, netns=plan.namespace.path, stop=stop)
    if not np.any(seen.elapsed):
        raise VerificationFailed(
            f"no request was seen in {seconds:g} s {when}",
            consequence="there is nothing to compare; nothing is left changed",
            next_step="let the service work meanwhile, or name a longer time",
        )
    return seen
