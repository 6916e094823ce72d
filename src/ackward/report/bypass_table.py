"""The experiment ``bypass`` on a terminal, and the rows that the page shows too: the document's table, then servers."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ackward.model.bypass_lab import BypassReport, Message, Pairs, ServerLoad
from ackward.model.units import count, duration, ratio, size

MESSAGES = ("message", "TCP latency", "bypass", "of TCP", "TCP bandwidth", "bypass", "of TCP")
SERVERS = ("server", "TCP requests/s", "bypass", "of TCP", "failed", "past the stack")


def bits(rate: float) -> str:
    """A rate: ``897 Mb/s``."""
    return f"{size(round(rate)).replace('B', 'b')}/s"


def _of_tcp(pairs: Pairs) -> str:
    low, high = min(pairs.ratios), max(pairs.ratios)
    return f"{ratio(pairs.medians[2])} ({ratio(low)} to {ratio(high)})"


def message_cells(message: Message) -> tuple[str, ...]:
    """One size: medians over the turns, and the ratio with its range."""
    (tcp, bypass, _), (rate, bypass_rate, _) = message.latency_ns.medians, message.bandwidth.medians
    return (
        f"{count(message.size)} B",
        duration(round(tcp)),
        duration(round(bypass)),
        _of_tcp(message.latency_ns),
        bits(rate),
        bits(bypass_rate),
        _of_tcp(message.bandwidth),
    )


def server_cells(server: ServerLoad) -> tuple[str, ...]:
    """One server: requests a second."""
    tcp, bypass, _ = server.per_second.medians
    return (
        server.name,
        count(round(tcp)),
        count(round(bypass)),
        _of_tcp(server.per_second),
        count(server.failed),
        count(server.redirected),
    )


def _tables(report: BypassReport) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    if report.messages:
        yield MESSAGES, [message_cells(message) for message in report.messages]
    if report.servers:
        yield SERVERS, [server_cells(server) for server in report.servers]


def view(report: BypassReport) -> RenderableType:
    """Everything, for a terminal."""
    parts: list[RenderableType] = []
    for headings, rows in _tables(report):
        table = Table(box=None, pad_edge=False)
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number else "left", header_style="dim")
        for row in rows:
            table.add_row(*row)
        parts += [table, ""]
    parts += [Text(note, style="dim") for note in report.notes]
    return Group(*parts)


def markdown(report: BypassReport) -> str:
    """The tables in Markdown, for the documentation."""
    lines = []
    for headings, rows in _tables(report):
        lines += ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    return "\n".join(lines)
