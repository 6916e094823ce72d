"""``ackward lab``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ackward.cli.output import data, print_json, talk, write_file
from ackward.cli.report_output import Page
from ackward.errors import VerificationFailed
from ackward.model.lab import LabReport
from ackward.model.verdict import Result

if TYPE_CHECKING:
    from ackward.lab.experiment import Answer, Experiment
    from ackward.lab.run import Tell, Told
    from ackward.lab.scenario import Scenario

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Reproduce stalls on this kernel.",
    epilog="Example: ackward lab run standoff --report standoff.html",
)

#: Characters of ``--set key=default``: nearly all have fewer.
_USUAL_SETTING = 30

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="change the load, for example rounds=20 (repeatable); `ackward lab list NAME` shows the keys",
        metavar="KEY=VALUE",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command("list", epilog="Examples:\n\nackward lab list\n\nackward lab list ocean")
def list_(
    name: Annotated[
        str | None, typer.Argument(help="one scenario: its settings, what it needs, how long it takes")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The scenarios, each with what it shows; of one scenario all that `--set` changes."""
    from ackward.lab.scenarios import ALL, EXPERIMENTS, runnable

    chosen: list[Scenario | Experiment] = [runnable(name)] if name else [*ALL, *EXPERIMENTS]
    if as_json:
        import json

        print_json(json.dumps([_told(each) for each in chosen], indent=2))
        return
    if name:
        _show_one(chosen[0])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("scenario", "what it shows", "cause", "remedy"):
        table.add_column(column)
    for each in chosen:
        told = _told(each)
        table.add_row(*(str(told[key] or "-") for key in ("name", "summary", "cause", "remedy")))
    data.print(table)
    talk.print(
        "\nrun one: ackward lab run standoff   (settings: --set rounds=20 --set family=6 --set nagle=off ...)\n"
        "one scenario's settings, what it needs and how long it takes: ackward lab list ocean"
    )


def _told(each: Scenario | Experiment) -> dict[str, object]:
    """What a list says of a scenario or an experiment."""
    from dataclasses import asdict

    from ackward.lab.experiment import Experiment

    told: dict[str, object] = {"name": each.name, "summary": each.summary}
    if isinstance(each, Experiment):
        extra = {"needs": each.needs, "takes": each.takes}
        return told | {"cause": None, "remedy": None, "settings": dict(each.settings)} | extra
    return told | {"cause": each.cause, "remedy": each.remedy, "settings": asdict(each.shape)}


def _show_one(each: Scenario | Experiment) -> None:
    """Its summary, what it needs, and each key of ``--set`` with its default."""
    from ackward.lab.scenario import HINTS

    told = _told(each)
    lines = [f"{each.name}: {each.summary}"]
    lines += [f"{key}: {words}" for key in ("needs", "takes") if (words := told.get(key))]
    settings = told["settings"]
    assert isinstance(settings, dict)
    given = {f"--set {key}={_value(value)}": key for key, value in settings.items()}
    hints = getattr(each, "hints", HINTS)
    # A long list of values pushes its own hint to the right, not everybody's.
    wide = max(len(setting) for setting in given if len(setting) <= _USUAL_SETTING)
    lines += ["", "settings, each with its default:"]
    lines += [
        f"  {setting:<{wide}}  {hints.get(key, 'give a number')}".rstrip() for setting, key in given.items()
    ]
    data.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    talk.print(f"\nrun it: ackward lab run {each.name}   (more of the settings: docs/lab.md)", markup=False)


def _value(value: object) -> str:
    """As ``--set`` takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ",".join(_value(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


@app.command(
    epilog="Examples:\n\nackward lab run standoff --report standoff.html\n\n"
    "ackward lab run standoff --set family=6 --set rounds=20 --json\n\n"
    "`ackward lab list NAME` tells a scenario's settings, what programs it needs and how long it takes."
)
def run(
    name: Annotated[str, typer.Argument(help="a scenario; `ackward lab list` shows them")],
    settings: Settings = None,
    view: Annotated[str, typer.Option(help="watch from this host: client, server or both")] = "both",
    report: Page = None,
    as_json: AsJson = False,
) -> int:
    """Run a scenario: reproduce, diagnose live, fix, prove, undo. Needs root; touches only namespaces of its own.

    Exits with 5 if a remedy was tried and the verdict is not "improved". An experiment has no remedy:
    it tells what this kernel does.
    """
    from ackward.errors import UsageError
    from ackward.lab import run as lab
    from ackward.lab.experiment import Experiment
    from ackward.lab.scenarios import runnable

    scenario = runnable(name).with_settings(settings or [])
    if view not in ("both", "client", "server"):
        raise UsageError(
            f"--view {view!r} is no host of the lab",
            consequence="nothing was run",
            next_step="say client, server or both",
        )
    if isinstance(scenario, Experiment):
        if view != "both":
            raise UsageError(
                f"{name} chooses itself what it watches",
                consequence="nothing was run",
                next_step="leave --view out",
            )
        with _story() as tell:
            answer = scenario.run(tell)
        _give(answer, as_json=as_json, page=report)
        return 0
    with _story() as tell:
        result = lab.run(scenario, tell, view=view)
    _show(result, as_json=as_json, page=report)
    return VerificationFailed.exit_code if result.fix and result.verdict is not Result.IMPROVED else 0


@contextmanager
def _story() -> Iterator[Tell]:
    """Tells what a run does: a line for each new thing, and how far its rounds are beside the spinner."""
    with talk.status("starting") as spinner:

        def tell(told: Told) -> None:
            if told.of:
                spinner.update(f"{told.text}: round {told.done} of {told.of}")
            else:
                talk.print(f"  {told.text}")
                spinner.update(told.text)

        yield tell


def _give(answer: Answer, *, as_json: bool, page: Path | None) -> None:
    if as_json:
        print_json(answer.to_json())
    else:
        data.print(answer.view())
    if page:
        write_file(page, answer.page())
        talk.print(f"report: {page}", markup=False)


def _show(result: LabReport, *, as_json: bool, page: Path | None) -> None:
    from ackward.model.report import Report
    from ackward.model.verdict import Phase

    phases = [
        Phase(
            name="before",
            measure=result.before,
            report=Report.model_validate(result.model_dump(by_alias=True, include=set(Report.model_fields))),
        ),
        Phase(name="after", measure=result.after, report=result.report_after),
    ]
    if as_json:
        print_json(result.to_json())
    else:
        from ackward.report.terminal import report_view, verdict_view

        data.print(report_view(result), "")
        data.print(verdict_view(result.comparison, phases))
    if page:
        from ackward.report.html import render

        title = f"ackward lab: {result.scenario}"
        settings = ", ".join(_as_set(result.settings))
        write_file(
            page, render(result, verdict=result.comparison, phases=phases, title=title, subtitle=settings)
        )
        talk.print(f"report: {page}", markup=False)


def _as_set(settings: Mapping[str, object]) -> Iterator[str]:
    """The settings as ``--set`` takes them, without those that are off, empty or 0."""
    for key, value in settings.items():
        if value:
            yield f"{key}={_value(value)}"


@app.command(epilog="Example, on the server's host: ackward lab serve --set port=7000")
def serve(
    address: Annotated[str, typer.Option(help="the address to listen on")] = "::",
    settings: Settings = None,
) -> None:
    """The server half of the load, on a real host. Ends with Ctrl-C."""
    from ackward.errors import Unavailable, UsageError
    from ackward.lab.peer import listen
    from ackward.lab.peer import serve as answer
    from ackward.lab.scenarios import named

    shape = named("standoff").with_settings(settings or []).shape
    if shape.http:
        raise UsageError(
            "`lab serve` speaks no HTTP",
            consequence="nothing was started",
            next_step="set up HAProxy with a server behind it, or use `ackward lab run haproxy`",
        )
    try:
        listener = listen(address, shape)
    except OSError as error:
        raise Unavailable(
            f"port {shape.port} cannot be listened on: {os.strerror(error.errno) if error.errno else error}",
            consequence="nothing was started",
            next_step="choose another with --set port=N",
        ) from error
    talk.print(
        f"answering on {address} port {shape.port}; on the other host: ackward lab load ADDRESS --set port={shape.port}"
    )
    answer(listener, shape)


@app.command(epilog="Example, on the client's host: ackward lab load 192.0.2.10 --set rounds=100")
def load(
    address: Annotated[str, typer.Argument(help="the server's address")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """The client half of the load, on a real host: measures each round."""
    import json

    import numpy as np

    from ackward.errors import Unavailable
    from ackward.lab.peer import load as ask
    from ackward.lab.scenarios import named
    from ackward.model.units import duration
    from ackward.verify.compare import measure

    shape = named("standoff").with_settings(settings or []).shape
    try:
        with talk.status("asking"):
            seen = measure(np.fromiter(ask(address, shape), np.int64))
    except OSError as error:
        raise Unavailable(
            f"{address} port {shape.port}: {error.strerror or error}",
            consequence="nothing was measured",
            next_step=f"start `ackward lab serve --set port={shape.port}` there, with the same settings",
        ) from error
    if as_json:
        print_json(json.dumps(seen.model_dump(), indent=2))
        return
    data.print(
        f"{seen.rounds} rounds: p50 {duration(seen.p50_ns)}, p99 {duration(seen.p99_ns)}, "
        f"{seen.slow} slower than {duration(seen.slow_above_ns)}"
    )
