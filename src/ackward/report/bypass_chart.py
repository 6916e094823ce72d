"""How much faster the bypass is than TCP: bars around 1 on a scale of powers of two, with the range of the turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as ET

from ackward.model.bypass_lab import BypassReport
from ackward.model.causes import Cause
from ackward.model.units import ratio
from ackward.report import palette

_LEFT, _WIDTH, _RIGHT = 92.0, 560.0, 120.0
_ROW, _BAR, _TOP = 26.0, 14.0, 22.0
#: The scale reaches at least from half to four times.
_LEAST, _MOST = 0.5, 4.0


def css() -> str:
    """The chart's rules."""
    return f"""
svg.bypass {{ display: block; font: 11.5px var(--sans); font-variant-numeric: tabular-nums; margin-top: 10px; }}
.bypass text {{ fill: var(--ink); }} .bypass .faster {{ fill: {palette.CAUSES[Cause.SERVER]}; }}
.bypass .slower {{ fill: {palette.CAUSES[Cause.STANDOFF]}; }}
.bypass .range, .bypass .one {{ stroke: var(--ink); }} .bypass .grid {{ stroke: var(--ink); opacity: 0.15; }}
"""


def charts(report: BypassReport) -> list[tuple[str, str]]:
    """Title and picture of each measure; times faster: above 1 the bypass is better."""
    found = []
    if report.messages:
        sizes = [f"{message.size:,} B" for message in report.messages]
        latency = [[1 / value for value in message.latency_ns.ratios] for message in report.messages]
        found.append(("Latency: times as fast as TCP", draw(sizes, latency)))
        bandwidth = [message.bandwidth.ratios for message in report.messages]
        found.append(("Bandwidth: times that of TCP", draw(sizes, bandwidth)))
    if report.servers:
        names = [server.name for server in report.servers]
        found.append(
            (
                "Requests a second: times those over TCP",
                draw(names, [server.per_second.ratios for server in report.servers]),
            )
        )
    return found


def draw(names: Sequence[str], ratios: Sequence[Sequence[float]]) -> str:
    """One bar a name, from 1 to the median of its ratios; a line spans all of them."""
    everything = [value for values in ratios for value in values]
    low = math.floor(math.log2(min(_LEAST, *everything)))
    high = math.ceil(math.log2(max(_MOST, *everything)))

    def x(value: float) -> float:
        return _LEFT + _WIDTH * (math.log2(value) - low) / (high - low)

    wide, tall = _LEFT + _WIDTH + _RIGHT, _TOP + _ROW * len(names)
    root = ET.Element(
        "svg",
        {"class": "bypass", "viewBox": f"0 0 {wide:.0f} {tall:.0f}", "width": f"{wide:.0f}", "role": "img"},
    )
    for power in range(low, high + 1):
        _line(root, "one" if power == 0 else "grid", x(2.0**power), _TOP - 6, x(2.0**power), tall)
        _text(root, x(2.0**power), _TOP - 9, f"{2.0**power:g}x", "middle")
    for number, (name, values) in enumerate(zip(names, ratios, strict=True)):
        _bar(root, name, sorted(values), _TOP + _ROW * number, x)
    return ET.tostring(root, encoding="unicode")


def _bar(
    root: ET.Element, name: str, values: Sequence[float], top: float, x: Callable[[float], float]
) -> None:
    middle = values[len(values) // 2]
    start, end = sorted((x(1.0), x(middle)))
    ET.SubElement(
        root,
        "rect",
        {
            "class": "faster" if middle >= 1 else "slower",
            "x": f"{start:.1f}",
            "y": f"{top:.1f}",
            "width": f"{max(end - start, 0.5):.1f}",
            "height": f"{_BAR}",
        },
    )
    _line(root, "range", x(values[0]), top + _BAR / 2, x(values[-1]), top + _BAR / 2)
    _text(root, _LEFT - 8, top + 11, name, "end")
    _text(root, _LEFT + _WIDTH + 8, top + 11, f"{ratio(middle)}x", "start")


def _line(root: ET.Element, kind: str, x1: float, y1: float, x2: float, y2: float) -> None:
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    ET.SubElement(root, "line", {"class": kind, **{name: f"{value:.1f}" for name, value in places.items()}})


def _text(root: ET.Element, x: float, y: float, words: str, anchor: str) -> None:
    ET.SubElement(root, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}).text = words
