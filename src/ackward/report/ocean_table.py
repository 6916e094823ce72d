"""The experiment ``ocean`` on a terminal: each way's moments beside those that were predicted."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ackward.model.ocean import Crossing, Moments, OceanReport, Transfer, Way
from ackward.model.units import duration, size

MEANING = {
    Way.DIRECT: "one connection from end to end",
    Way.HAPROXY: "HAProxy in the gateways' place",
    Way.SPLIT: "the gateways, all steps off",
    Way.EARLY: "and the SYN starts the next leg",
    Way.POOL: "and legs are connected beforehand",
    Way.WINDOW: "and without slow start: all steps",
    Way.FAITHFUL: "all steps; the client is connected once the server is",
}


def condition(crossing: Crossing) -> str:
    """Under what the transfers ran."""
    if crossing.competing:
        return "Beside a download over the last mile alone"
    return f"{crossing.loss:.1%} of segments lost on the last mile" if crossing.loss else "Without loss"


def view(report: OceanReport) -> RenderableType:
    """All crossings."""
    parts: list[RenderableType] = []
    for crossing in report.crossings:
        parts += [Text(f"\n{condition(crossing)}", style="bold"), _table(crossing)]
    parts += [Text(note) for note in report.notes]
    return Group(*parts)


def _table(crossing: Crossing) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for head in ("answer", "connected", "first byte", "of pred.", "download", "of pred.", "gain"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows(crossing):
        table.add_row(*row)
    return table


def rows(crossing: Crossing) -> Iterator[tuple[str, ...]]:
    """A row a transfer: times, each measured by predicted, and how many times sooner than directly it is there."""
    direct = {transfer.size_bytes: transfer.median for transfer in crossing.of(Way.DIRECT)}
    for transfer in crossing.transfers:
        yield (
            transfer.way,
            size(transfer.size_bytes),
            duration(transfer.median.connected_ns),
            duration(transfer.median.first_byte_ns),
            _beside(transfer.first_byte_ratio),
            duration(transfer.median.download_ns),
            _beside(transfer.download_ratio),
            _gain(direct.get(transfer.size_bytes), transfer),
        )


def _beside(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"


def _gain(direct: Moments | None, transfer: Transfer) -> str:
    return f"{direct.download_ns / transfer.median.download_ns:.2f}x" if direct else ""
