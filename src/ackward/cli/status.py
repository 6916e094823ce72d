"""``ackward status``: the remedies in force, read back from the kernel."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ackward import remedies
from ackward.cli.output import data, print_json, talk
from ackward.remedies.receipts import Receipts

app = typer.Typer(add_completion=False)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Show each remedy as the kernel sees it now: in force, partly in force, gone, changed by someone else.

    Example: ackward status --json
    """
    store = Receipts()
    contents = store.load()
    found = [remedies.load(receipt.remedy).status(receipt, store) for receipt in contents.receipts]
    if as_json:
        document = {
            "remedies": [one.model_dump(mode="json", by_alias=True) for one in found],
            "damaged": [str(path) for path in contents.damaged],
        }
        print_json(json.dumps(document, indent=2))
        return
    for one in found:
        receipt = one.receipt
        heading = (
            f"{receipt.id}: {receipt.remedy} for {receipt.scope.words} in namespace {receipt.namespace.name}"
        )
        data.print(f"{heading}: {one.state.value}", markup=False, soft_wrap=True)
        for look in one.details:
            data.print(f"  {look.words}", markup=False, soft_wrap=True)
    if not found:
        data.print("No remedies in force.")
    for path in contents.damaged:
        talk.print(f"Unreadable: {path}. `ackward undo --all` clears it.", markup=False, soft_wrap=True)
