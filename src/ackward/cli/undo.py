"""``ackward undo``: take remedies back."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ackward.cli.output import data, print_json, talk
from ackward.cli.pods_on_record import say
from ackward.errors import PartlyChanged, UsageError
from ackward.loop import fixing
from ackward.model.fixing import UndoReport
from ackward.model.plan import UndoOutcome
from ackward.remedies.clearance import Cleared

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: ackward undo --all")
def undo(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="receipts, as status shows")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="all of them, and what is left without one")
    ] = False,
    until_boot: Annotated[
        bool, typer.Option("--until-boot", help="only until then: what --persist made stays")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Remove what a remedy made and restore what it set, unless someone changed it since."""
    if bool(ids) == everything:
        raise UsageError(
            "name receipts or --all, and not both",
            consequence="nothing was undone",
            next_step="`ackward status` lists the receipts",
        )
    if everything and until_boot:
        raise UsageError(
            "--until-boot is for receipts that are named",
            consequence="nothing was undone",
            next_step="`ackward status` lists them",
        )
    _show(_undo_all() if everything else _undo(ids or [], until_boot=until_boot), as_json=as_json)


def _undo(ids: list[str], *, until_boot: bool) -> Cleared:
    return Cleared(tuple(fixing.undo(*ids, until_boot=until_boot)))


def _undo_all() -> Cleared:
    cleared = fixing.undo_everything()
    say(cleared.spared, "what they asked for stays; `ackward node uninstall` takes it back")
    return cleared


def _show(cleared: Cleared, *, as_json: bool) -> None:
    if as_json:
        report = UndoReport(
            undone=cleared.outcomes,
            swept=cleared.swept,
            set_aside=tuple(map(str, cleared.aside)),
            open=cleared.open_points,
        )
        print_json(json.dumps(report.model_dump(mode="json", by_alias=True), indent=2))
        if not cleared.complete:
            raise typer.Exit(PartlyChanged.exit_code)
        return
    for outcome in cleared.outcomes:
        _show_outcome(outcome)
    for what in cleared.swept:
        data.print(f"Removed without a receipt: {what}.", markup=False, soft_wrap=True)
    if not (cleared.outcomes or cleared.swept or cleared.aside):
        data.print("Nothing to undo.")
    if not cleared.complete:
        raise PartlyChanged(
            "; ".join(cleared.open_points),
            consequence="all else was undone",
            next_step=cleared.next_step,
        )


def _show_outcome(outcome: UndoOutcome) -> None:
    data.print(f"{outcome.receipt}:", markup=False)
    for part in outcome.details:
        data.print(f"  {part.words}", markup=False, soft_wrap=True)
    if outcome.failed:
        talk.print(f"The receipt {outcome.receipt} is kept: try again.", markup=False)
