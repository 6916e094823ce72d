"""Sockets as lines of a table: plain text that lines up, also for ten thousand of them.

Rich's tables measure each cell several times, which takes seconds for so many. Addresses and names that are
too long for the width are folded, never cut: they are there to be copied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells

from ackward.model import names, units
from ackward.model.sockets import Socket, SocketReport

_GAP = " "
#: No column is folded below this: with four that fold, 120 columns are enough for all.
_NARROWEST = 10
#: As `ss` shortens them, so that the column stays narrow.
_STATES = {"ESTABLISHED": "ESTAB", "NEW_SYN_RECV": "SYN_RECV", "BOUND_INACTIVE": "BOUND"}


@dataclass(frozen=True)
class Line:
    """One line; ``emphasis`` is ``suspect`` for a socket that may stall, ``why`` for the words under it, or empty."""

    text: str
    emphasis: str = ""


@dataclass(frozen=True)
class _Column:
    header: str
    cell: Callable[[Socket], str]
    right: bool = False
    folds: int = 0  # 0 never; where room is short, lower numbers fold first


def _flag(value: bool | None, yes: str, no: str) -> str:
    return "-" if value is None else yes if value else no


def _number(value: int | None, form: Callable[[int], str] = str) -> str:
    return "-" if value is None else form(value)


@functools.lru_cache(maxsize=1 << 12)  # many sockets, few different values, exact arithmetic
def _short(ns: int) -> str:
    return units.duration(ns).replace(" ", "").replace(".0ms", "ms")


def _bytes(octets: int) -> str:
    return units.size(octets).replace(" ", "") if octets else "0"


def _nagle(socket: Socket) -> str:
    return "cork" if socket.cork else _flag(socket.nodelay, "off", "on")


def _process(socket: Socket) -> str:
    process = socket.process
    if process.pid is None:
        return "-"
    more = f"+{len(socket.other_pids)}" if socket.other_pids else ""
    return names.visible(f"{process.command}/{process.pid}{more}")


def _queues(socket: Socket) -> tuple[str, str]:
    """What the columns for sent and unsent data say; for a listener, its accept queue and the limit."""
    if socket.remote is None:
        return _number(socket.accept_queue), f"/{_number(socket.accept_queue_limit)}"
    return _number(socket.unacked), _number(socket.unsent_bytes, _bytes)


_COLUMNS = (
    _Column("state", lambda socket: _STATES.get(socket.state, socket.state)),
    _Column("local", lambda socket: socket.local, folds=3),
    _Column("remote", lambda socket: socket.remote or "*", folds=3),
    _Column("process", _process, folds=2),
    _Column("quick", lambda socket: _number(socket.quick), right=True),
    _Column("pp", lambda socket: _flag(socket.pingpong, "yes", "no")),
    _Column("ato", lambda socket: _number(socket.ato_ns, lambda ns: _short(ns) if ns else "0"), right=True),
    _Column("Nagle", _nagle),
    _Column("route", lambda socket: _flag(socket.route_quickack, "quick", "no")),
    _Column("unacked", lambda socket: _queues(socket)[0], right=True),
    _Column("unsent", lambda socket: _queues(socket)[1], right=True),
    _Column("srtt", lambda socket: _number(socket.srtt_ns, _short), right=True),
    _Column("cwnd", lambda socket: _number(socket.cwnd), right=True),
)
_WHERE = _Column(
    "where", lambda socket: names.visible(socket.process.container or socket.process.netns or "-"), folds=1
)


def lines(report: SocketReport, width: int) -> Iterator[Line]:
    """The table at most ``width`` columns wide where that is possible, the header first.

    The container, else the namespace, has a column where it tells sockets apart.
    """
    columns = list(_COLUMNS)
    if len({(socket.netns, socket.process.container) for socket in report.sockets}) > 1:
        columns.insert(4, _WHERE)
    rows = [[column.cell(socket) for column in columns] for socket in report.sockets]
    widths = _fitted(columns, rows, width)
    yield from (Line(text, "header") for text in _laid_out([c.header for c in columns], columns, widths))
    for socket, row in zip(report.sockets, rows, strict=True):
        emphasis = "suspect" if socket.suspects else ""
        yield from (Line(text, emphasis) for text in _laid_out(row, columns, widths))
        yield from (Line(f"    {names.prose(suspect.why)}", "why") for suspect in socket.suspects)


def _fitted(columns: Sequence[_Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The widths of columns: as their cells need, less where folding lets all fit."""
    cells = zip(*rows, strict=True) if rows else [()] * len(columns)
    widths = [
        max(map(_width, (column.header, *column_cells)))
        for column, column_cells in zip(columns, cells, strict=True)
    ]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    for turn in (1, 2, 3):
        folding = [at for at, column in enumerate(columns) if column.folds == turn]
        while excess > 0 and folding:
            widest = max(folding, key=lambda at: widths[at])
            if widths[widest] <= _NARROWEST:
                break  # if all are, a very narrow terminal wraps the lines itself
            widths[widest] -= 1
            excess -= 1
    return widths


def _width(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)


def _laid_out(row: Sequence[str], columns: Sequence[_Column], widths: Sequence[int]) -> Iterator[str]:
    folded = [
        [text] if _width(text) <= width else chop_cells(text, width)
        for text, width in zip(row, widths, strict=True)
    ]
    for at in range(max(map(len, folded))):
        parts = []
        for cell, column, width in zip(folded, columns, widths, strict=True):
            text = cell[at] if at < len(cell) else ""
            padding = " " * (width - _width(text))
            parts.append(padding + text if column.right else text + padding)
        yield _GAP.join(parts).rstrip()
