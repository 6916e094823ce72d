"""``ackward doctor``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ackward.cli.output import data, print_json, talk
from ackward.errors import PrivilegeMissing
from ackward.model.doctor import Ability, DoctorReport, Judgement, NamespaceReport, Outcome, ProbeResult

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

_EXAMPLE = "Example: sudo ackward doctor --json | jq '.namespaces\\[].settings\\[] | select(.command)'"
_COLOUR = {
    "yes": "green",
    "fine": "green",
    "partly": "yellow",
    "unsure": "yellow",
    "no": "red",
    "hurts": "red",
}


@app.command(epilog=_EXAMPLE)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON (ackward/doctor/1)")] = False,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="try instead what joined sockets do to programs here, for `fix bypass` (needs root; seconds)",
        ),
    ] = False,
) -> None:
    """Check this host: what kernel and privileges allow, and the settings that make somebody wait.

    Every ability is tried for real and undone at once; nothing is changed.

    Without root it does what it can and says what root would add.
    """
    from ackward.loop.doctor import examine

    if self_test:
        _self_test(as_json=as_json)
        return
    report = examine()
    if as_json:
        print_json(report.to_json())
    else:
        ticks = f" (HZ {report.hz})" if report.hz else ""
        data.print(escape(f"Linux {report.kernel}{ticks}: {report.verdict}.\n"))
        _show_commands(report.commands)
        _show_probes(report.probes)
        for namespaces in report.namespaces:
            _show_settings(namespaces)
    _say_what_is_missing(report)


def _self_test(*, as_json: bool) -> None:
    from ackward.remedies.bypass import capabilities
    from ackward.remedies.bypass.rules import OF_BLOCKING_READERS
    from ackward.remedies.bypass.selftest.run import self_test
    from ackward.report.capability_table import view

    with talk.status("trying") as spinner:
        found = self_test(lambda what: spinner.update(f"trying {what}"))
    capabilities.store(found)
    if as_json:
        print_json(found.to_json())
    else:
        data.print(view(found))
    names = [finding.hazard for finding in found.differing(OF_BLOCKING_READERS)]
    if names:
        talk.print(
            f"\nPrograms that do any of these {len(names)} things would notice; `ackward fix bypass` asks for "
            f"--accept {','.join(names)}",
            soft_wrap=True,
        )
    blocking = [finding.hazard for finding in found.differing() if finding.hazard in OF_BLOCKING_READERS]
    if blocking:
        talk.print(
            f"Programs that block in recv() would notice {', '.join(blocking)}: they stay on TCP, and nothing need be "
            "accepted for them (--no-learn joins them, and asks).",
            soft_wrap=True,
        )


def _say_what_is_missing(report: DoctorReport) -> None:
    for note in report.notes:
        talk.print(f"Note: {escape(note)}.", soft_wrap=True)
    if any(result.name == "root" and result.outcome is not Outcome.YES for result in report.probes):
        untold = sum(result.outcome is Outcome.UNSURE for result in report.probes)
        probes = "1 probe" if untold == 1 else f"{untold} probes"
        error = PrivilegeMissing.for_this_command(
            f"{probes} could not tell without root", consequence="what is marked unsure may work or not"
        )
        talk.print(escape(str(error)), soft_wrap=True)


def _word(word: str) -> str:
    return f"[{_COLOUR[word]}]{word}[/]"


def _table(title: str, *columns: str) -> Table:
    """A table whose last column holds sentences and may wrap; the others line up."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns[:-1]:
        table.add_column(column, header_style="dim", overflow="fold")
    table.add_column(columns[-1], header_style="dim", overflow="fold", ratio=1)
    return table


def _show_commands(abilities: list[Ability]) -> None:
    table = _table("What works here", "command", "works", "why")
    for ability in abilities:
        table.add_row(f"ackward {ability.command}", _word(ability.works), escape(ability.why))
    data.print(table, "")


def _show_probes(results: list[ProbeResult]) -> None:
    table = _table("What kernel and privileges allow", "group", "probe", "there", "detail")
    group = ""
    for result in results:
        words = [result.detail.rstrip(".")] if result.detail else []
        if result.outcome is not Outcome.YES:
            words.append(f"without it: {result.costs}")
        shown = "" if result.group == group else result.group
        group = result.group
        table.add_row(shown, result.name, _word(result.outcome), escape("; ".join(words)))
    data.print(table, "")


def _show_settings(report: NamespaceReport) -> None:
    names, more = report.namespaces[:4], len(report.namespaces) - 4
    noun = "namespace" if len(report.namespaces) == 1 else "namespaces"
    title = f"Settings of {noun} {', '.join(names)}" + (f" and {more} more" if more > 0 else "")
    table = _table(escape(title), "setting", "value", "", "what it does to whom")
    for setting in report.settings:
        row = escape(setting.name), escape(setting.value), _word(setting.judgement), escape(setting.effect)
        table.add_row(*row)
    data.print(table)
    # Whole lines, to be copied: a table would break them.
    for setting in report.settings:
        if setting.judgement is Judgement.HURTS and setting.command:
            data.print(f"  {escape(setting.command)}", soft_wrap=True)
    data.print()
