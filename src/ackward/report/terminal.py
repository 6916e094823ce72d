"""The report and the verdict for the terminal: Rich renderables, as good without colour and at 80 columns.

Nothing here is Rich markup: every text is a ``Text``, so brackets in a container's name stay brackets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ackward.model import names, units
from ackward.model.causes import End
from ackward.model.comparison import Comparison
from ackward.model.report import Finding, Report, SameHost
from ackward.model.verdict import Guard, Phase, Verdict
from ackward.report import palette, summary
from ackward.report.shell import CommandLine

#: The widest that text is set: longer lines are hard to read back.
WIDEST = 100
#: Servers of this host that are named one by one.
MOST_SERVICES = 8
#: Findings that are told at length: a host with thousands of connections must not scroll its worst one away.
MOST_FINDINGS = 8


def report_view(report: Report) -> RenderableType:
    """Where the time went, each finding with its commands, and what of the capture is missing."""
    parts: list[RenderableType] = [_narrow(Text(summary.headline(report), style="bold"))]
    if report.capture.dropped_flows:
        parts.append(_dropped(report))
    if report.elapsed_ns:
        parts += [Text(), _narrow(_partition(report))]
    findings = summary.worst_first(report)
    for finding in findings[:MOST_FINDINGS]:
        parts += [Text(), *_finding(finding, report)]
    if rest := findings[MOST_FINDINGS:]:
        parts += [Text(), _narrow(Text(_left_out(rest)))]
    if report.same_host:
        parts += [Text(), *_same_host(report.same_host)]
    if report.capture.notes:
        parts.append(Text())
        parts += [_bullet(note) for note in report.capture.notes]
    return Group(*parts)


def _left_out(findings: Sequence[Finding]) -> str:
    lost = units.duration(sum(finding.lost_ns.total for finding in findings))
    causes = ", ".join(dict.fromkeys(finding.cause for finding in findings))
    noun = units.plural(len(findings), "smaller finding")
    return f"And {noun} ({causes}), {lost} in all: --report and --json show them."


def _same_host(services: Sequence[SameHost]) -> Iterator[RenderableType]:
    yield Text("Within this host:")
    for service in services[:MOST_SERVICES]:
        yield _bullet(f"{service.server}: {service.words}")
        if service.command:
            yield Text(f"    {service.command}", style="bold")
    if (more := len(services) - MOST_SERVICES) > 0:
        yield _bullet(f"and {units.plural(more, 'more server')} (--json shows all)")


def verdict_view(verdict: Verdict, phases: Sequence[Phase] = ()) -> RenderableType:
    """The verdict in words and the measured phases under it."""
    said = Text.assemble(
        (f"{verdict.result.value.capitalize()}.", f"bold {palette.RESULTS[verdict.result]}"),
        " ",
        names.prose(verdict.words),
    )
    measures = summary.measures(verdict, phases)
    table = _table("Phase", "", ">Median", ">p99", ">Slow rounds")
    longest = max(measure.p50_ns for _, measure in measures)
    for name, measure in measures:
        table.add_row(
            Text(names.visible(name)),
            Bar(measure.p50_ns / longest if longest else 0.0),
            units.duration(measure.p50_ns),
            units.duration(measure.p99_ns),
            f"{units.count(measure.slow)} of {units.count(measure.rounds)}",
        )
    slow = units.duration(measures[0][1].slow_above_ns)
    scale = f"Bars are medians. A round is slow above {slow}."
    ratio = f"{summary.before_and_after(verdict)}."
    parts: list[RenderableType] = [said, Text(), table, Text(scale, style="dim"), Text(ratio, style="dim")]
    if verdict.guards:
        parts += [Text(), _guards(verdict.guards)]
    return _narrow(Group(*parts))


def _guards(guards: Sequence[Guard]) -> RenderableType:
    table = _table("Guard", "Says", "Measured")
    for guard in guards:
        table.add_row(
            guard.name,
            Text(guard.state.value, palette.GUARDS[guard.state]),
            Text(names.prose(guard.words)),
        )
    return table


def comparison_view(comparison: Comparison) -> RenderableType:
    """The verdict on two reports or captures, and what each cause took on either side."""
    table = _table("Time an exchange", ">Before", ">Share", ">After", ">Share")
    for change in comparison.causes:
        table.add_row(
            Text(change.cause, palette.CAUSES[change.cause]),
            units.duration(round(change.before_ns)),
            _share(change.before_share),
            units.duration(round(change.after_ns)),
            _share(change.after_share),
        )
    parts: list[RenderableType] = [verdict_view(comparison.verdict), Text(), _narrow(table)]
    for name, side in (("before", comparison.before), ("after", comparison.after)):
        basis = " (from the quantiles in its report)" if side.basis == "quantiles" else ""
        parts.append(_bullet(f"{name}: {units.plural(side.exchanges, 'exchange')} of {side.source}{basis}"))
    return Group(*parts)


@dataclass(frozen=True)
class Bar:
    """A bar of ``fraction`` of the room it is given. Something never shows as nothing."""

    fraction: float
    colour: str = "blue"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line of full blocks and one block of eighths; ``#`` where only ASCII can be written."""
        eighths = round(self.fraction * options.max_width * 8)
        if self.fraction > 0:
            eighths = max(eighths, 1)
        full, rest = divmod(eighths, 8)
        line = "#" * (full + (rest > 0)) if options.ascii_only else "█" * full + " ▏▎▍▌▋▊▉"[rest].strip()
        yield Segment(line.ljust(options.max_width)[: options.max_width], Style(color=self.colour))
        yield Segment.line()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """All the room that there is."""
        return Measurement(4, options.max_width)


def _narrow(renderable: RenderableType) -> RenderableType:
    return Constrain(renderable, WIDEST)


def _table(*headers: str) -> Table:
    """A table of plain columns; ``>`` before a header sets its column to the right."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim", expand=True)
    for header in headers:
        if header:
            table.add_column(
                header.lstrip(">"), justify="right" if header[0] == ">" else "left", no_wrap=header[0] == ">"
            )
        else:
            table.add_column("", ratio=1)
    return table


def _share(share: float) -> str:
    return units.share(round(share * 1e9), 1_000_000_000)


def _partition(report: Report) -> RenderableType:
    table = _table("Where the time went", "", ">Time", ">Share", ">Exchanges")
    for part in summary.partition(report):
        table.add_row(
            Text(part.cause),
            Bar(part.width, palette.CAUSES[part.cause]),
            units.duration(part.ns),
            part.share,
            units.count(part.exchanges),
        )
    table.add_row(
        "all", "", units.duration(report.elapsed_ns), "", units.count(report.exchanges), style="dim"
    )
    return table


def _finding(finding: Finding, report: Report) -> Iterator[RenderableType]:
    total = f", {units.duration(finding.lost_ns.total)} in all" if finding.lost_ns.total else ""
    body: list[RenderableType] = [
        Text(f"{summary.cost(finding, report)}{total}", style="bold"),
        Text(summary.MEANINGS[finding.cause]),
        Text(),
        _ends(finding),
    ]
    if finding.why:
        body += [Text(), Text(names.prose(finding.why))]
    if finding.evidence:
        body += [Text(), Text("Evidence:"), *map(_bullet, finding.evidence)]
    title = Text.assemble((str(finding.cause), f"bold {palette.CAUSES[finding.cause]}"), f", {finding.grade}")
    yield _narrow(Panel(Group(*body), title=title, title_align="left", padding=(0, 1)))
    for remedy in finding.remedies:
        words = Text.assemble((names.visible(remedy.name), "bold"), f" at the {remedy.end}")
        if gain := summary.gain(remedy, finding):
            words.append(f" {gain}")
        yield _narrow(words)
        if remedy.command:
            yield CommandLine(remedy.command)
        if remedy.advice:
            yield _narrow(Padding(Text(names.prose(remedy.advice)), (0, 0, 0, 2)))


def _ends(finding: Finding) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for end in End:
        client = end is End.CLIENT
        who = Text(names.visible(finding.client if client else finding.server))
        if role := summary.role(finding, end):
            who.append(f"  {role}", style="bold")
        if owner := summary.owner(finding.client_process if client else finding.server_process):
            who.append(f"\n{owner}", style="dim")
        table.add_row(Text(end), who)
    if finding.flows != 1:
        table.add_row(Text("flows"), Text(units.count(finding.flows)))
    return table


def _bullet(text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text("-"), Text(names.prose(text), overflow="fold"))
    return _narrow(grid)


def _dropped(report: Report) -> RenderableType:
    dropped = report.capture.dropped_flows
    verb = "is" if dropped == 1 else "are"
    words = f"{units.plural(dropped, 'flow')} could not be kept and {verb} in no number here."
    return _narrow(Text(words, style="yellow"))
