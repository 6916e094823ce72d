"""The experiment ``ocean`` in words and tables: what the gateways gained, and each way beside the others by size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ackward.model.ocean import Crossing, OceanReport, Transfer, Way
from ackward.model.units import duration, plural, size

MEANING = {
    Way.DIRECT: "one connection from end to end",
    Way.HAPROXY: "HAProxy in the gateways' place",
    Way.SPLIT: "the gateways, all steps off",
    Way.EARLY: "and the SYN starts the next leg",
    Way.POOL: "and legs are connected beforehand",
    Way.WINDOW: "and without slow start: all steps",
    Way.FAITHFUL: "all steps; the client is connected once the server is",
}
#: Of :func:`rows`. The gain is how many times sooner than directly.
HEADINGS = (
    "Way", "Connected",
    "First byte", "Range", "Of predicted", "Gain",
    "Download", "Range", "Of predicted", "Gain",
)  # fmt: skip
#: The gateways as far as they were measured: the most steps first.
_BEST = (Way.WINDOW, Way.POOL, Way.EARLY, Way.SPLIT, Way.FAITHFUL)
_OTHERS = {Way.DIRECT: "the direct connection", Way.HAPROXY: "HAProxy"}


def condition(crossing: Crossing) -> str:
    """Under what the transfers ran."""
    if crossing.competing:
        return "Beside a download over the last mile alone"
    return f"{crossing.loss:.1%} of segments lost on the last mile" if crossing.loss else "Without loss"


def by_size(crossing: Crossing) -> Iterator[tuple[int, list[Transfer]]]:
    """All ways of one answer, the smallest answer first."""
    for octets in sorted({transfer.size_bytes for transfer in crossing.transfers}):
        yield octets, [transfer for transfer in crossing.transfers if transfer.size_bytes == octets]


def conclusions(crossing: Crossing) -> Iterator[str]:
    """A line for each size and each of the others: what the gateways with the most steps gained on it."""
    for octets, transfers in by_size(crossing):
        found = {transfer.way: transfer.median for transfer in transfers}
        best = next((way for way in _BEST if way in found), None)
        for other, words in _OTHERS.items():
            if best is None or other not in found:
                continue
            before, after = found[other], found[best]
            first = _change(before.first_byte_ns, after.first_byte_ns)
            download = _change(before.download_ns, after.download_ns)
            yield f"{size(octets)}, {best} against {words}: first byte {first}; download {download}"


def _change(before_ns: int, after_ns: int) -> str:
    return f"{duration(before_ns)} -> {duration(after_ns)}, {before_ns / after_ns:.2f}x"


def made(report: OceanReport) -> str:
    """Where the figures come from."""
    return f"ackward {report.version}, {report.kernel}, {report.made:%Y-%m-%d %H:%M} UTC"


def view(report: OceanReport) -> RenderableType:
    """All crossings, what they come to above each."""
    parts: list[RenderableType] = [Text(made(report))]
    for crossing in report.crossings:
        parts.append(Text(f"\n{condition(crossing)}", style="bold"))
        parts += [Text(line) for line in conclusions(crossing)]
        for octets, transfers in by_size(crossing):
            parts += [Text(f"\n{size(octets)}: {repeated(transfers)}"), _table(transfers)]
    parts += [Text(f"Note: {note}.") for note in report.notes]
    return Group(*parts)


def repeated(transfers: Sequence[Transfer]) -> str:
    """How often each way was taken: what stands behind a median."""
    most = max(len(transfer.rounds) for transfer in transfers)
    return f"medians of {plural(most, 'round')}" if most > 1 else "one round"


def _table(transfers: Sequence[Transfer]) -> Table:
    """What fits 80 columns: the conclusions above it and the page have the first byte's range and gain."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for head in ("connected", "first byte", "of pred.", "download", "range", "of pred.", "gain"):
        table.add_column(head, justify="right", no_wrap=True)
    for way, connected, first, _, first_of, _, *download in rows(transfers):
        table.add_row(way, connected, first, first_of, *download)
    return table


def rows(transfers: Sequence[Transfer]) -> Iterator[tuple[str, ...]]:
    """A row a way, under :data:`HEADINGS`: medians, the range of the rounds, by predicted, and the gain."""
    direct = next((each.median for each in transfers if each.way is Way.DIRECT), None)
    for transfer in transfers:
        first = [each.first_byte_ns for each in transfer.rounds]
        download = [each.download_ns for each in transfer.rounds]
        median = transfer.median
        yield (
            transfer.way,
            duration(median.connected_ns),
            duration(median.first_byte_ns),
            _range(first),
            _beside(transfer.first_byte_ratio),
            f"{direct.first_byte_ns / median.first_byte_ns:.2f}x" if direct else "",
            duration(median.download_ns),
            _range(download),
            _beside(transfer.download_ratio),
            f"{direct.download_ns / median.download_ns:.2f}x" if direct else "",
        )


def _range(moments: Sequence[int]) -> str:
    return f"{duration(min(moments))} to {duration(max(moments))}" if len(moments) > 1 else ""


def _beside(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"
