"""The tables of benchmarks/bypass.py, in Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

#: Load -> mode -> repetitions of its figures.
Figures = dict[str, float]
Found = dict[str, dict[str, list[Figures]]]

UNITS: dict[str, tuple[str, float, str]] = {
    "p50_ns": ("us", 1e3, "p50"),
    "p99_ns": ("us", 1e3, "p99"),
    "a_second": ("/s", 1, "a second"),
    "bits": ("Mb/s", 1e6, "bandwidth"),
    "cpu_ns": ("us", 1e3, "CPU a message"),
}
SHOWN = {
    "ask": ("p50_ns", "cpu_ns"),
    "stream": ("bits", "cpu_ns"),
    "nodelay": ("bits",),
    "mixed": ("a_second", "bits"),
    "servers": ("a_second", "cpu_ns"),
}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of what was drawn from lies with 95 % confidence: two of the values themselves, by the binomial
    distribution of how many lie below it. With fewer than six values, the smallest and the largest (94 % for five).
    """
    ordered, count = sorted(values), len(values)
    below, least = 0.0, 0
    while (below := below + math.comb(count, least) / 2**count) <= 0.025:
        least += 1
    at = max(0, least - 1)
    return ordered[at], ordered[count - 1 - at]


def ratio(runs: Sequence[Figures], base: Sequence[Figures], figure: str) -> str:
    ratios = [run[figure] / other[figure] for run, other in zip(runs, base, strict=True)]
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"


def show(results: Mapping[str, Found]) -> None:
    for kind, loads in results.items():
        for figure in SHOWN[kind]:
            unit, scale, title = UNITS[figure]
            modes = list(next(iter(loads.values())))
            print(f"\n**{kind}**, {title}: {unit} over TCP, then times that (95 % interval)\n")
            best = "learned" if kind in ("stream", "nodelay", "mixed") else "joined"
            compared = best in modes and "upstream" in modes
            print("| load | " + " | ".join(modes) + (f" | {best} of upstream |" if compared else " |"))
            print("|---" * (len(modes) + 1 + compared) + "|")
            for load, found in loads.items():
                base = found["tcp"]
                cells = [f"{statistics.median(run[figure] for run in base) / scale:,.2f}"]
                cells += [ratio(found[name], base, figure) for name in modes[1:]]
                if compared:
                    cells.append(ratio(found[best], found["upstream"], figure))
                print(f"| {load} | " + " | ".join(cells) + " |")
