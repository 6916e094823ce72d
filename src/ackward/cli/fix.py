"""``ackward fix``: apply a remedy, show what it would change, or prove that it helps."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ackward.cli.output import data, print_json, talk
from ackward.model.plan import Plan, Receipt
from ackward.model.proof import Proof
from ackward.model.verdict import Result

app = typer.Typer(no_args_is_help=True, add_completion=False)

EPILOG = """Examples:\n\n
ackward fix quickack --port 7000 --dry-run     show what would change\n\n
ackward fix quickack --port 7000 --prove 30s   keep it only if it helps\n\n
ackward fix quickack --netns web               all default routes there"""


@app.callback()
def fix() -> None:
    """Apply a remedy. It can be shown first (--dry-run) and is undone with `ackward undo`."""


@app.command(epilog=EPILOG)
def quickack(
    netns: Annotated[str, typer.Option(help="namespace: a name, a PID, a path, or self")] = "self",
    to: Annotated[str | None, typer.Option(help="routes to this CIDR instead of default routes")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port, local or remote, instead of routes")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan, change nothing")] = False,
    prove: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="measure that long before and after; undo unless it improved"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> int:
    """Acknowledge at once, so that no peer's Nagle waits for an ACK. Open connections profit too."""
    from ackward.loop import fixing
    from ackward.remedies.receipts import Receipts

    plan = fixing.plan_quickack(netns=netns, to=to, port=port)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return 0
    if prove:
        return _prove(plan, prove, as_json=as_json)
    earlier = Receipts().find(plan.remedy, plan.namespace, plan.scope)
    receipt = fixing.apply(plan)
    _show_receipt(plan, receipt, is_new=receipt is not None and receipt != earlier, as_json=as_json)
    return 0


def _prove(plan: Plan, time: str, *, as_json: bool) -> int:
    from ackward.cli.arguments import duration_ns
    from ackward.errors import VerificationFailed
    from ackward.loop import fixing
    from ackward.report.terminal import verdict_view

    seconds = duration_ns(time, "--prove") / 1e9
    with talk.status("proving") as spinner:

        def say(what: str) -> None:
            talk.print(f"  {what}", markup=False)
            spinner.update(what)

        proof: Proof = fixing.prove(plan, seconds, say=say)
    if as_json:
        print_json(proof.model_dump_json(by_alias=True, indent=2))
    else:
        data.print(verdict_view(proof.verdict, proof.phases))
        if proof.receipt:
            data.print(
                f"Kept: receipt {proof.receipt.id}. Take it back with `ackward undo {proof.receipt.id}`.",
                markup=False,
            )
        else:
            data.print("Undone: nothing is left changed.")
    return 0 if proof.verdict.result is Result.IMPROVED else VerificationFailed.exit_code


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        print_json(json.dumps({"plan": plan.model_dump(mode="json"), "receipt": None}, indent=2))
        return
    if plan.changes:
        data.print(f"quickack for {plan.scope.words} in namespace {plan.namespace.name} would", markup=False)
        for change in plan.changes:
            data.print(f"  {change.words}", markup=False, soft_wrap=True)
    else:
        data.print("Nothing to do.")
    _show_notes(plan)


def _show_receipt(plan: Plan, receipt: Receipt | None, *, is_new: bool, as_json: bool) -> None:
    if as_json:
        receipt_json = receipt.model_dump(mode="json", by_alias=True) if receipt else None
        print_json(json.dumps({"plan": plan.model_dump(mode="json"), "receipt": receipt_json}, indent=2))
        return
    if receipt is None:
        data.print("Nothing to do.")
    elif not is_new:
        data.print(f"In force already: receipt {receipt.id}. Nothing was changed.", markup=False)
        return
    else:
        data.print(f"Applied: receipt {receipt.id}.", markup=False)
        for change in receipt.changes:
            data.print(f"  {change.words}", markup=False, soft_wrap=True)
        talk.print(f"Take it back with `ackward undo {receipt.id}`.", markup=False)
    _show_notes(plan)


def _show_notes(plan: Plan) -> None:
    for note in plan.notes:
        talk.print(f"Note: {note}.", markup=False, soft_wrap=True)
