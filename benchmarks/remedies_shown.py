"""What `remedies.py` found: tables in Markdown, and the 2x2 as an SVG file for light and dark paper."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ackward.model.causes import Cause
from ackward.report import palette

#: One measurement: times in nanoseconds, the rest for each round.
Figures = dict[str, float]
#: Load -> mode -> repetitions.
Found = dict[str, dict[str, list[Figures]]]

#: From which median on a round counts as stalled: half of the shortest delayed ACK (TCP_DELACK_MIN, 40 ms).
STALLED_NS = 20e6
#: What the bars span: 10 us to 100 ms.
SHORTEST_NS, LONGEST_NS = 1e4, 1e8
WIDTH, HEIGHT = 305, 185
LEFT, TOP, GAP = 120, 40, 10

#: The loads of the picture, and what it calls them.
DRAWN = {"split": "plain request", "haproxy": "through HAProxy"}

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 750 442" width="750" height="442" role="img" aria-labelledby="title"
 font-family="system-ui, sans-serif" font-size="13">
<title id="title">Time, packets and CPU of a round, by what runs Nagle's algorithm and delays ACKs</title>
<style>
.paper {{ fill: {light} }} text {{ fill: #1b1f24 }} .muted {{ fill: #5a6370 }} .cell {{ fill: #f6f7f9; stroke: #dde1e6 }}
.bold {{ font-weight: 650 }} .stalled {{ fill: {stalled} }} .flowing {{ fill: {flowing} }}
@media (prefers-color-scheme: dark) {{
.paper {{ fill: {dark} }} text {{ fill: #e4e7eb }} .muted {{ fill: #9aa4b1 }} .cell {{ fill: #1b1f24; stroke: #313841 }}
}}
</style>
<rect class="paper" width="750" height="442"/>"""


def time_of(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.3g} ms" if nanoseconds >= 1e6 else f"{nanoseconds / 1e3:.3g} us"


def count(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def middles(runs: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}


def share(number: float) -> str:
    return f"{number:.{2 if number < 0.1 else 3}g}"


def ratio(runs: Sequence[Figures], base: Sequence[Figures], figure: str) -> str:
    if runs is base:
        return "1"
    ratios = [run[figure] / other[figure] for run, other in zip(runs, base, strict=True)]
    low, mid, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{share(mid)} ({share(low)} to {share(high)})"


def row(*columns: str) -> None:
    print("| " + " | ".join(columns) + " |")


def heading(*columns: str) -> None:
    row(*columns)
    print("|" + "---|" * len(columns))


def show_cells(found: Found) -> None:
    for load, cells in found.items():
        print(f"\n**{load}**, for each round:\n")
        heading("remedy", "p50 / p99", "rounds/s", "packets with data, out + back", "ACKs alone", "bytes", "CPU",
                "sent again", "p50, of neither", "CPU, of neither")  # fmt: skip
        for cell, runs in cells.items():
            of = middles(runs)
            row(cell, f"{time_of(of['p50_ns'])} / {time_of(of['p99_ns'])}", count(of["rounds_a_second"]),
                f"{count(of['data_out'])} + {count(of['data_in'])}", count(of["acks_out"] + of["acks_in"]),
                count(of["bytes"]), time_of(of["cpu_ns"]), f"{of['retransmitted']:.2g}",
                *(ratio(runs, cells["neither"], figure) for figure in ("p50_ns", "cpu_ns")))  # fmt: skip


def show_windows(found: Found) -> None:
    print("\n**initcwnd**, for each answer:\n")
    heading(
        "load",
        "remedy",
        "p50",
        "in round trips",
        "sent again",
        "the other's request, p50 / p99",
        "p50, of none",
    )
    for name, modes in found.items():
        none = next(iter(modes.values()))
        for words, runs in modes.items():
            of = middles(runs)
            again, beside = "-", "-"
            if "data" in of:
                again = f"{count(of['retransmitted'])} of {of['data']:.0f}"
                beside = f"{time_of(of['beside_p50_ns'])} / {time_of(of['beside_p99_ns'])}"
            row(
                name,
                words,
                time_of(of["p50_ns"]),
                f"{of['round_trips']:.1f}",
                again,
                beside,
                ratio(runs, none, "p50_ns"),
            )


def text(x: float, y: float, words: str, classes: str = "", more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{classes}"{more}>{words}</text>'


def drawn(x: float, y: float, name: str, runs: Sequence[Figures]) -> list[str]:
    """One load in one cell."""
    of = middles(runs)
    stalls = of["p50_ns"] > STALLED_NS
    share = math.log(of["p50_ns"] / SHORTEST_NS) / math.log(LONGEST_NS / SHORTEST_NS)
    wide = min(1.0, max(0.02, share)) * (WIDTH - 24)
    data, acks = (of[f"{kind}_out"] + of[f"{kind}_in"] for kind in ("data", "acks"))
    return [
        text(x + 12, y, f"{name}{f': {Cause.STANDOFF}' * stalls}", "muted"),
        text(x + WIDTH - 12, y, time_of(of["p50_ns"]), "bold", ' font-size="17" text-anchor="end"'),
        f'<rect class="{"stalled" if stalls else "flowing"}" x="{x + 12}" y="{y + 9}" width="{wide:.1f}" height="9" rx="2"/>',
        text(x + 12, y + 37, f"p99 {time_of(of['p99_ns'])}; CPU {time_of(of['cpu_ns'])}"),
        text(
            x + 12,
            y + 55,
            f"packets: {data:.3g} with data, {acks:.2g} {'ACK' if round(acks) == 1 else 'ACKs'} alone",
        ),
    ]


def picture(found: Found) -> str:
    """The 2x2 of the loads where both rules meet, as SVG."""
    light, dark = palette.PAPER
    colours = {"stalled": palette.CAUSES[Cause.STANDOFF], "flowing": palette.CAUSES[Cause.SERVER]}
    parts = [HEAD.format(light=light, dark=dark, **colours)]
    rows = (("Nagle on", ("neither", "quickack")), ("fix nodelay", ("nodelay", "both")))
    for column, words in enumerate(("server: delayed ACKs", "server: fix quickack")):
        parts.append(text(LEFT + column * (WIDTH + GAP), 26, words, "bold"))
    for line, (words, cells) in enumerate(rows):
        y = TOP + line * (HEIGHT + GAP)
        parts += [text(12, y + 85, "client:", "bold"), text(12, y + 103, words, "bold")]
        for column, cell in enumerate(cells):
            x = LEFT + column * (WIDTH + GAP)
            parts.append(f'<rect class="cell" x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>')
            for number, (load, name) in enumerate(DRAWN.items()):
                parts += drawn(x, y + 26 + number * 90, name, found[load][cell])
    parts.append(text(LEFT, 434, "median time of a round; bars: logarithmic, 10 us to 100 ms", "muted"))
    return "\n".join([*parts, "</svg>", ""])
