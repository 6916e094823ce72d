"""What ``ackward fix NAME`` does with its plan: show it, prove it, or carry it out."""

from __future__ import annotations

import json

from ackward.cli.fix_options import Manner
from ackward.cli.output import data, print_json, talk, write_file
from ackward.errors import VerificationFailed
from ackward.loop import fixing, proving
from ackward.model.fixing import FixReport
from ackward.model.plan import Plan, Receipt
from ackward.model.proof import Proof
from ackward.model.verdict import Result


def run(plan: Plan, manner: Manner) -> int:
    """Carry out the request; gives the exit code."""
    fixing.lasting(lease=manner.lease, persist=manner.persist)  # a wrong request is wrong for --dry-run too
    if manner.dry_run:
        _show_plan(plan, as_json=manner.as_json)
        return 0
    if manner.prove:
        return _prove(plan, manner, manner.prove)
    earlier = fixing.earlier(plan)
    receipt = fixing.apply(plan, lease=manner.lease, persist=manner.persist)
    _show_receipt(plan, earlier, receipt, as_json=manner.as_json)
    return 0


def _prove(plan: Plan, manner: Manner, seconds: float) -> int:
    with talk.status("proving") as spinner:

        def say(what: str) -> None:
            talk.print(f"  {what}", markup=False)
            spinner.update(what)

        proof = proving.prove(plan, seconds, lease=manner.lease, persist=manner.persist, say=say)
    _show_proof(proof, as_json=manner.as_json)
    if manner.page:
        from ackward.report.html import render

        title = f"ackward fix {plan.remedy}: {plan.scope.words}"
        before = proof.phases[0].report
        write_file(manner.page, render(before, verdict=proof.verdict, phases=proof.phases, title=title))
        talk.print(f"report: {manner.page}", markup=False)
    return 0 if proof.verdict.result is Result.IMPROVED else VerificationFailed.exit_code


def _show_proof(proof: Proof, *, as_json: bool) -> None:
    from ackward.report.terminal import verdict_view

    if as_json:
        print_json(proof.model_dump_json(by_alias=True, indent=2))
        return
    data.print(verdict_view(proof.verdict, proof.phases))
    if proof.receipt:
        data.print(
            f"Kept: receipt {proof.receipt.id}. Take it back with `ackward undo {proof.receipt.id}`.",
            markup=False,
        )
    else:
        data.print("Undone: nothing is left changed.")


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        _print(FixReport(plan=plan, receipt=None))
        return
    if plan.changes:
        data.print(
            f"{plan.remedy} for {plan.scope.words} in namespace {plan.namespace.name} would", markup=False
        )
        for change in plan.changes:
            data.print(f"  {change.words}", markup=False, soft_wrap=True)
    else:
        data.print("Nothing to do.")
    _show_notes(plan)


def _show_receipt(plan: Plan, earlier: Receipt | None, receipt: Receipt | None, *, as_json: bool) -> None:
    if as_json:
        _print(FixReport(plan=plan, receipt=receipt))
        return
    if receipt is None:
        data.print("Nothing to do.")
        _show_notes(plan)
        return
    if earlier is None or earlier.id != receipt.id:
        data.print(f"Applied: receipt {receipt.id}.", markup=False)
        new = receipt.changes
    else:
        new = tuple(change for change in receipt.changes if change not in earlier.changes)
        words = "How long it lasts was changed:" if new else "Nothing was changed."
        data.print(f"In force already: receipt {receipt.id}. {words}", markup=False)
    for change in new:
        data.print(f"  {change.words}", markup=False, soft_wrap=True)
    if new:
        talk.print(f"Take it back with `ackward undo {receipt.id}`.", markup=False)
        _show_notes(plan)


def _print(report: FixReport) -> None:
    print_json(json.dumps(report.model_dump(mode="json", by_alias=True), indent=2))


def _show_notes(plan: Plan) -> None:
    for note in plan.notes:
        talk.print(f"Note: {note}.", markup=False, soft_wrap=True)
