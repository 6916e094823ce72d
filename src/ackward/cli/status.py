"""``ackward status``: the remedies in force, read back from the kernel."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ackward.cli.output import data, print_json, talk
from ackward.cli.pods_on_record import on_record, say
from ackward.loop import fixing
from ackward.model.gateways import GatewayScope
from ackward.remedies.gateway.owner import lives
from ackward.report.status_table import lines

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: ackward status --json")
def status(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Show each remedy as the kernel sees it now: in force, partly in force, gone, changed by someone else.

    Since when, how long its lease has left, and whether it comes back at boot.
    """
    report = fixing.status_report()
    found, waiting = report.remedies, report.persisted
    if as_json:
        print_json(json.dumps(report.model_dump(mode="json", by_alias=True), indent=2))
        return
    say(on_record(), "`ackward node status` shows their remedies")
    for line in lines(found, waiting):
        data.print(line, markup=False, soft_wrap=True)
    for one in found:
        data.print(f"\n{one.receipt.id}:", markup=False)
        for look in one.details:
            data.print(f"  {look.words}", markup=False, soft_wrap=True)
        scope = one.receipt.scope
        if isinstance(scope, GatewayScope) and not lives(scope):
            data.print(
                f"  the gateway has ended and left this behind: `ackward undo {one.receipt.id}`",
                markup=False,
                soft_wrap=True,
            )
    for persistent in waiting:
        data.print(
            f"\n{persistent.id}:\n  {persistent.unit} applies it at boot", markup=False, soft_wrap=True
        )
    if not (found or waiting):
        data.print("No remedies in force.")
    for path in report.damaged:
        talk.print(f"Unreadable: {path}. `ackward undo --all` clears it.", markup=False, soft_wrap=True)
