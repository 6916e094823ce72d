"""The table of flows as columns of texts, so that 30,000 rows stay small in the page and quick in its script.

Each column holds its different texts once and, per row, the number of its text. Numbers carry what they sort
by beside what they read as: the page's script formats nothing, so one rule says how a time is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ackward.model import names, units
from ackward.model.report import FlowSummary
from ackward.report import summary

#: Rows that stand in the page itself and are there without its script.
PLAIN_ROWS = 200


@dataclass(frozen=True)
class Column:
    """One column. ``index[row]`` numbers its text in ``texts``; ``sort[row]`` is there for numbers only."""

    label: str
    texts: list[str]
    index: list[int]
    sort: list[int] | None = None
    kind: str = "text"

    def as_json(self) -> dict[str, object]:
        """The column as the page's script reads it."""
        return {
            "label": self.label,
            "kind": self.kind,
            "texts": self.texts,
            "index": self.index,
            "sort": self.sort,
        }


@dataclass(frozen=True)
class FlowTable:
    """Columns of equal length, the flow that took most time first."""

    columns: list[Column]
    rows: int
    plain_rows: int = PLAIN_ROWS

    def plain(self) -> Iterator[list[tuple[Column, str]]]:
        """The first rows, cell by cell."""
        for row in range(min(self.rows, self.plain_rows)):
            yield [(column, column.texts[column.index[row]]) for column in self.columns]


def table_of(flows: Sequence[FlowSummary]) -> FlowTable:
    """All flows; columns in which no flow has anything to say are left out."""
    ordered = sorted(flows, key=lambda flow: -flow.elapsed_ns)
    columns = [
        _texts("Client", [flow.client for flow in ordered], kind="name"),
        _texts("Its process", [summary.owner(flow.client_process) for flow in ordered], kind="name"),
        _texts("Server", [flow.server for flow in ordered], kind="name"),
        _texts("Its process", [summary.owner(flow.server_process) for flow in ordered], kind="name"),
        _texts("Worst cause", [str(flow.worst_cause or "") for flow in ordered], kind="cause"),
        _numbers("Time", [flow.elapsed_ns for flow in ordered], units.duration),
        _numbers("Exchanges", [flow.exchanges for flow in ordered], units.count),
        _numbers("To server", [flow.bytes_to_server for flow in ordered], units.size),
        _numbers("To client", [flow.bytes_to_client for flow in ordered], units.size),
        _numbers("Sent again", [flow.retransmissions for flow in ordered], units.count),
        _numbers("Handshake", [flow.rtt_ns for flow in ordered], units.duration),
        _numbers("ACK after", [flow.ack_rtt_ns for flow in ordered], units.duration),
        _texts("Seen from", [flow.seen_from for flow in ordered]),
        _texts("Protocol", ["" if flow.protocol == "tcp" else flow.protocol for flow in ordered]),
    ]
    return FlowTable([column for column in columns if column.texts != [""]], len(ordered))


def _numbered(texts: list[str]) -> tuple[list[str], list[int]]:
    numbers: dict[str, int] = {}
    index = [numbers.setdefault(text, len(numbers)) for text in texts]
    return list(numbers), index


def _texts(label: str, texts: list[str], *, kind: str = "text") -> Column:
    return Column(label, *_numbered([names.visible(text) for text in texts]), kind=kind)


def _numbers(label: str, values: Sequence[int | None], written: Callable[[int], str]) -> Column:
    texts = ["" if value is None else written(value) for value in values]
    # What nobody knows sorts below all that somebody does.
    sort = [-1 if value is None else value for value in values]
    return Column(label, *_numbered(texts), sort=sort, kind="number")
