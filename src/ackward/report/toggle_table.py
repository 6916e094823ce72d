"""The experiment ``quickack-toggle`` on a terminal: how each setting acknowledged, its switches and budgets."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from ackward.model.toggle import (
    AckKind,
    Budget,
    FirstBudget,
    PhaseSeen,
    Switch,
    Timeline,
    ToggleReport,
)
from ackward.model.trace import FUNCTIONS, Because
from ackward.model.units import duration, instant, plural

#: How each rule reads in a heading.
KINDS = {
    AckKind.QUICK: "quick",
    AckKind.SECOND_SEGMENT: "2nd",
    AckKind.READ: "read",
    AckKind.SETSOCKOPT: "set",
    AckKind.TIMER: "timer",
    AckKind.WITH_DATA: "data",
}


def title(timeline: Timeline) -> str:
    """What was set on this connection, in words."""
    match timeline.setting:
        case "unset":
            return "TCP_QUICKACK never set"
        case "route":
            return "TCP_QUICKACK never set, quickack 1 on the route"
        case value:
            return f"TCP_QUICKACK = {value}, set once after accept"


def view(report: ToggleReport) -> RenderableType:
    """Everything but the single ACKs and packets, which JSON and the page have."""
    parts: list[RenderableType] = [Text(f"{report.kernel}: how each setting acknowledged", style="bold")]
    for timeline in report.timelines:
        parts += [Text(f"\n{title(timeline)}", style="bold"), _phases(timeline.phases), Text()]
        if timeline.switches:
            parts.append(_switches(timeline.switches))
        else:
            always = bool(timeline.points) and timeline.points[-1].quickack
            parts.append(Text(f"quick ACKs never changed: always {'on' if always else 'off'}"))
        parts += [Text(), _budgets("during", by_phase(timeline.budgets))]
    if report.first_budgets:
        parts.append(Text("\nThe first budget of a new connection, by SO_RCVBUF", style="bold"))
        parts.append(_budgets("SO_RCVBUF", by_buffer(report.first_budgets)))
    parts += [Text("\nWhere the kernel does it", style="bold"), _functions(report)]
    parts += [Text(note) for note in report.notes]
    if report.lost_events:
        parts.append(Text(f"{plural(report.lost_events, 'event')} of the trace lost", style="bold red"))
    return Group(*parts)


def _table(*columns: tuple[str, JustifyMethod]) -> Table:
    """Numbers and names of traffic keep their line; other words may take several."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading, justify in columns:
        whole = justify == "right" or heading in ("traffic", "during")
        table.add_column(heading, justify=justify, no_wrap=whole)
    return table


def _phases(phases: Sequence[PhaseSeen]) -> Table:
    numbers = (*KINDS.values(), "p50", "max", "option")
    table = _table(("traffic", "left"), *((heading, "right") for heading in numbers))
    for phase in phases:
        table.add_row(
            phase.name,
            *(str(phase.acks.get(kind, "-")) for kind in KINDS),
            _delay(phase.delay_p50_ns),
            _delay(phase.delay_max_ns),
            str(int(phase.option)),
        )
    return table


def _delay(ns: int | None) -> str:
    return "-" if ns is None else duration(ns)


def _switches(switches: Sequence[Switch]) -> Table:
    words = ("during", "quick ACKs", "because")
    table = _table(
        ("at", "right"), *((heading, "left") for heading in words), ("quick", "right"), ("pingpong", "right")
    )
    for switch in switches:
        table.add_row(
            instant(switch.at_ns),
            switch.phase,
            "on" if switch.on else "off",
            switch.reason,
            f"{switch.before.quick}->{switch.after.quick}",
            f"{switch.before.pingpong}->{switch.after.pingpong}",
        )
    return table


def _functions(report: ToggleReport) -> Table:
    seen = {switch.reason for timeline in report.timelines for switch in timeline.switches}
    seen |= {budget.reason for timeline in report.timelines for budget in timeline.budgets}
    seen |= {budget.ended for timeline in report.timelines for budget in timeline.budgets if budget.ended}
    table = _table(("because", "left"), ("kernel function", "left"))
    for reason in Because:
        if reason in seen:
            table.add_row(reason, FUNCTIONS[reason])
    return table


def spent(budget: Budget) -> str:
    """What became of the budget, in words: ``16 quick, 1 timer``."""
    return ", ".join(f"{count} {kind}" for kind, count in budget.spent.items()) or "none"


def rule(budget: Budget) -> str:
    """The kernel's rule with its numbers: ``65160 / 2896 -> 16``."""
    return f"{budget.window_bytes} / {2 * budget.segment_bytes} -> {budget.rule}"


def by_phase(budgets: Sequence[Budget]) -> list[tuple[str, Budget]]:
    """Budgets, each with the traffic in which it was filled."""
    return [(budget.phase, budget) for budget in budgets]


def by_buffer(firsts: Sequence[FirstBudget]) -> list[tuple[str, Budget]]:
    """Budgets, each with the receive buffer of its connection."""
    return [(f"{first.receive_buffer} B", first.budget) for first in firsts]


def _budgets(heading: str, rows: Sequence[tuple[str, Budget]]) -> Table:
    table = _table(
        *((heading, "left"), ("because", "left"), ("window / (2 MSS)", "right"), ("filled", "right")),
        *(("ACKs from it", "left"), ("left", "right"), ("ended by", "left")),
    )
    for name, budget in rows:
        grown = f" (+{budget.grown} grown)" if budget.grown else ""
        table.add_row(
            name,
            budget.reason,
            rule(budget),
            str(budget.filled),
            spent(budget) + grown,
            str(budget.left),
            budget.ended or "-",
        )
    return table
