"""The prediction of the ACK model for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

from ackward.model import units
from ackward.model.prediction import AckPrediction, Round
from ackward.report import palette, prediction_ladder
from ackward.report.terminal import WIDEST

#: Rounds that are listed; alike ones in a row are one line.
_MOST_LINES = 12


def view(prediction: AckPrediction) -> RenderableType:
    """Verdict, rounds, what would change it, and a typical round as a ladder."""
    said = [Text(prediction.verdict[0], style="bold"), *map(Text, prediction.verdict[1:])]
    parts: list[RenderableType] = [*said, Text(), _rounds(prediction)]
    if prediction.alternatives:
        parts += [Text(), _alternatives(prediction)]
    shown = f"Round {prediction.shown + 1}, {units.duration(prediction.ladder.elapsed_ns)}:"
    parts += [Text(), Text(shown), prediction_ladder.lines(prediction)]
    left_out = f"Not in the model: {'; '.join(prediction.not_modelled)}."
    parts += [Text(), Text(left_out, style="dim")]
    return Constrain(Group(*parts), WIDEST)


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for header in headers:
        right = header.startswith(">")
        table.add_column(
            header.lstrip(">"), justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    return table


def _rounds(prediction: AckPrediction) -> Table:
    table = _table("Rounds", ">Time", "ACKs", "Probes", ">Timeouts", "Spent on")
    runs = _runs(prediction.rounds)
    for first, last, each in runs[:_MOST_LINES]:
        causes = Text(", ").join(
            Text.assemble((str(cause), palette.CAUSES[cause]), f" {units.duration(ns)}")
            for cause, ns in each.causes.items()
        )
        table.add_row(
            f"{first}" if first == last else f"{first}-{last}",
            units.duration(each.elapsed_ns),
            _of(each.acks, each.acks_by_timer, "by timer"),
            _of(each.probes, each.spurious_probes, "spurious"),
            units.count(each.timeouts),
            causes,
        )
    if left := runs[_MOST_LINES:]:
        table.add_row(f"{left[0][0]}-{left[-1][1]}", "...", "", "", "", "(see --json)", style="dim")
    return table


def _of(number: int, some: int, which: str) -> str:
    return f"{number} ({some} {which})" if some else str(number)


def _runs(rounds: list[Round]) -> list[tuple[int, int, Round]]:
    """Rounds in a row that read alike: first and last number, and the first one."""
    runs: list[tuple[int, int, Round]] = []
    for number, each in enumerate(rounds, 1):
        if runs and _alike(runs[-1][2], each):
            runs[-1] = (runs[-1][0], number, runs[-1][2])
        else:
            runs.append((number, number, each))
    return runs


def _alike(one: Round, other: Round) -> bool:
    def read(each: Round) -> tuple[object, ...]:
        counts = (each.acks, each.acks_by_timer, each.probes, each.spurious_probes, each.timeouts)
        return units.duration(each.elapsed_ns), counts, list(each.causes)

    return read(one) == read(other)


def _alternatives(prediction: AckPrediction) -> Table:
    table = _table("Instead", ">Median", ">Saves", ">Spurious", ">Timeouts", "Setting")
    for each in prediction.alternatives:
        table.add_row(
            f"{each.name} ({each.end})",
            units.duration(each.p50_ns),
            units.duration(each.saves_ns) if each.saves_ns else "nothing",
            units.count(each.spurious_probes),
            units.count(each.timeouts),
            each.setting,
        )
    return table
