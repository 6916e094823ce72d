"""``ackward fix``: apply a remedy, or show what it would change."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ackward import remedies
from ackward.cli.output import data, print_json, talk
from ackward.errors import UsageError
from ackward.kernel.namespaces import resolve
from ackward.model.plan import Plan, PortScope, Receipt, Refusal, RouteScope, Scope
from ackward.remedies.receipts import Receipts

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def fix() -> None:
    """Apply a remedy. It can be shown first (--dry-run) and is undone with `ackward undo`."""


@app.command()
def quickack(
    netns: Annotated[str, typer.Option(help="namespace: a name, a PID, a path, or self")] = "self",
    to: Annotated[str | None, typer.Option(help="routes to this CIDR instead of default routes")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port, local or remote, instead of routes")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan, change nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Acknowledge at once, so that no peer's Nagle waits for an ACK. Open connections profit too.

    Example: ackward fix quickack --port 7000 --dry-run
    """
    remedy = remedies.load("quickack")
    plan = remedy.plan(resolve(netns), quickack_scope(to, port))
    if isinstance(plan, Refusal):
        raise plan.as_error()
    store = Receipts()
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return
    earlier = store.find(plan.remedy, plan.namespace, plan.scope)
    receipt = remedy.apply(plan, store)
    _show_receipt(plan, receipt, is_new=receipt is not None and receipt != earlier, as_json=as_json)


def quickack_scope(to: str | None, port: int | None) -> Scope:
    """The scope that the options ask for; raises :class:`UsageError`."""
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
