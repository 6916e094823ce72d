"""One connection of ``quickack-toggle`` as a picture: every ACK's delay, and under it quick, pingpong and ato.

Laws
 - Time runs to the right, and a phase's share of the width does not depend on how long it took.
 - Within a phase a gap between two moments is as wide as its logarithm: 2 us and 300 ms fit beside each other.
 - A kind of ACK has a shape and a colour of its own.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree as ET

from ackward.model.causes import Cause
from ackward.model.toggle import Ack, AckKind, PhaseSeen, Point, Timeline
from ackward.model.units import duration, instant
from ackward.report import palette

#: Where the width of a gap is one unit: about the time between two segments of a burst.
_UNIT_NS = 10_000
_LEFT, _WIDTH, _LEAST_PHASE = 122.0, 1110.0, 84.0
_TOP, _DELAYS, _QUICK, _STEPS, _GAP = 38.0, 150.0, 72.0, 36.0, 14.0
#: The delay axis: powers of ten from 1 us to 100 ms, above the jitter of the 40 ms timer.
_DECADES = {
    1_000: "1 us",
    10_000: "10 us",
    100_000: "100 us",
    1_000_000: "1 ms",
    10_000_000: "10 ms",
    100_000_000: "100 ms",
}
_LEAST_NS = min(_DECADES)
_COLOURS = {
    AckKind.QUICK: Cause.SERVER,
    AckKind.SECOND_SEGMENT: Cause.NETWORK,
    AckKind.READ: Cause.HANDSHAKE,
    AckKind.SETSOCKOPT: Cause.RETRANSMISSION_TIMEOUT,
    AckKind.TIMER: Cause.STANDOFF,
    AckKind.WITH_DATA: Cause.CONGESTION_WINDOW,
}
_SHAPES = {
    AckKind.QUICK: "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    AckKind.SECOND_SEGMENT: "M-3 -3h6v6h-6z",
    AckKind.READ: "M0 -4.5L4.5 0L0 4.5L-4.5 0z",
    AckKind.SETSOCKOPT: "M-1.5 -5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
    AckKind.TIMER: "M0 -5.5L5.5 4.5H-5.5z",
    AckKind.WITH_DATA: "M0 5L-4.5 -4H4.5z",
}


def css() -> str:
    """The rules that give each kind of ACK its colour, in the chart and in the legend."""
    return "\n".join(
        f".ack-{_name(kind)} {{ fill: {palette.CAUSES[cause]}; }}" for kind, cause in _COLOURS.items()
    )


def symbol(kind: AckKind) -> str:
    """The mark of one kind, for the legend."""
    picture = ET.Element("svg", {"class": "symbol", "viewBox": "-7 -7 14 14", "width": "14", "height": "14"})
    ET.SubElement(picture, "path", {"class": f"ack-{_name(kind)}", "d": _SHAPES[kind]})
    return ET.tostring(picture, encoding="unicode")


def _name(kind: AckKind) -> str:
    return kind.replace(" ", "-")


@dataclass(frozen=True)
class Scale:
    """Maps moments (ns) to the right. ``moments`` ascend, and so do ``places``."""

    moments: tuple[int, ...]
    places: tuple[float, ...]

    def x(self, moment: int) -> float:
        """The place of a moment; those before the first phase and after the last stand at the edge."""
        at = min(max(bisect_right(self.moments, moment) - 1, 0), len(self.moments) - 2)
        start, end = self.moments[at], self.moments[at + 1]
        share = min(max((moment - start) / (end - start), 0.0), 1.0)
        return self.places[at] + share * (self.places[at + 1] - self.places[at])


def scale_of(phases: Sequence[PhaseSeen], moments: Sequence[int]) -> Scale:
    """The time axis: see the laws at the top of this module."""
    parts = []
    for number, phase in enumerate(phases):
        end = phases[number + 1].start_ns if number + 1 < len(phases) else phase.end_ns
        inside = {moment for moment in moments if phase.start_ns < moment < end}
        parts.append(sorted({phase.start_ns, end, *inside}))
    gaps = [
        [math.log2(1 + (later - earlier) / _UNIT_NS) for earlier, later in pairwise(part)] for part in parts
    ]
    free = _WIDTH - _LEFT - _LEAST_PHASE * len(parts)
    everything = sum(map(sum, gaps))
    at, places, times = _LEFT, [_LEFT], [parts[0][0]]
    for part, widths in zip(parts, gaps, strict=True):
        width = _LEAST_PHASE + free * sum(widths) / everything
        for moment, gap in zip(part[1:], widths, strict=True):
            at += width * gap / sum(widths)
            places.append(at)
            times.append(moment)
    return Scale(tuple(times), tuple(places))


def draw(timeline: Timeline, jiffy_ns: int | None) -> str:
    """The picture as SVG; ato is in milliseconds where the length of a jiffy is known."""
    return _Chart(timeline, jiffy_ns).svg()


class _Chart:
    def __init__(self, timeline: Timeline, jiffy_ns: int | None) -> None:
        self.timeline, self.jiffy_ns = timeline, jiffy_ns
        moments = [ack.at_ns for ack in timeline.acks] + [point.at_ns for point in timeline.points]
        self.x = scale_of(timeline.phases, moments).x
        self.end = timeline.phases[-1].end_ns
        self.delays = _TOP
        self.quick = self.delays + _DELAYS + _GAP
        self.pingpong = self.quick + _QUICK + _GAP
        self.ato = self.pingpong + _STEPS + _GAP
        self.height = self.ato + _STEPS + 8
        self.root = ET.Element(
            "svg",
            {
                "class": "toggle",
                "viewBox": f"0 0 {_WIDTH:.0f} {self.height:.0f}",
                "width": f"{_WIDTH:.0f}",
                "role": "img",
                "aria-label": "Delay of every ACK, quick, pingpong and ato over time; the tables have the numbers",
            },
        )

    def svg(self) -> str:
        self._quick_mode()
        self._phases()
        for decade, words in _DECADES.items():
            y = self._delay_y(decade)
            self._add("line", x1=_LEFT, x2=_WIDTH, y1=y, y2=y, class_="grid")
            self._text(_LEFT - 6, y + 4, words, "end")
        self._axis("ACK delay", self.delays)
        for ack in self.timeline.acks:
            self._mark(ack)
        unit = self.jiffy_ns / 1e6 if self.jiffy_ns else 1
        self._steps("quick", self.quick, _QUICK, lambda point: point.quick)
        self._steps("pingpong", self.pingpong, _STEPS, lambda point: point.pingpong)
        name = "ato, ms" if self.jiffy_ns else "ato, jiffies"
        self._steps(name, self.ato, _STEPS, lambda point: point.ato * unit)
        return ET.tostring(self.root, encoding="unicode")

    def _add(self, tag: str, parent: ET.Element | None = None, **attributes: str | float) -> ET.Element:
        written = {
            name.rstrip("_").replace("_", "-"): f"{value:.1f}" if isinstance(value, float) else value
            for name, value in attributes.items()
        }
        return ET.SubElement(self.root if parent is None else parent, tag, written)

    def _text(self, x: float, y: float, words: str, anchor: str = "start", class_: str = "") -> None:
        self._add("text", x=x, y=y, text_anchor=anchor, class_=class_).text = words

    def _axis(self, words: str, top: float) -> None:
        self._text(0.0, top + 9, words, class_="axis")

    def _quick_mode(self) -> None:
        """The ground where ACKs are quick."""
        ends = [*(point.at_ns for point in self.timeline.points[1:]), self.end]
        for point, end in zip(self.timeline.points, ends, strict=False):
            if point.quickack and end > point.at_ns:
                x = self.x(point.at_ns)
                self._add(
                    "rect", x=x, width=self.x(end) - x, y=self.delays, height=self.pingpong - self.delays - _GAP,
                    class_="on",
                )  # fmt: skip

    def _phases(self) -> None:
        for phase in self.timeline.phases:
            x = self.x(phase.start_ns)
            self._add("line", x1=x, x2=x, y1=4.0, y2=self.height - 4, class_="phase")
            first, _, second = phase.name.replace("-", "- ", 1).partition(" ")
            self._text(x + 5, 13.0, first, class_="name")
            self._text(x + 5, 27.0, second or duration(phase.end_ns - phase.start_ns), class_="name")

    def _delay_y(self, ns: int) -> float:
        share = math.log10(max(ns, _LEAST_NS) / _LEAST_NS) / (len(_DECADES) - 1)
        return self.delays + 8 + (_DELAYS - 12) * (1 - min(share, 1.0))

    def _mark(self, ack: Ack) -> None:
        place = f"translate({self.x(ack.at_ns):.1f} {self._delay_y(ack.delay_ns):.1f})"
        mark = self._add("path", d=_SHAPES[ack.kind], transform=place, class_=f"mark ack-{_name(ack.kind)}")
        wire = "" if ack.wire_delay_ns is None else f", {duration(ack.wire_delay_ns)} on the wire"
        ET.SubElement(mark, "title").text = (
            f"{instant(ack.at_ns)}: {ack.kind}, after {duration(ack.delay_ns)}{wire}; ack {ack.ack}, "
            f"{ack.quick} left"
        )

    def _steps(self, name: str, top: float, tall: float, value: Callable[[Point], float]) -> None:
        self._axis(name, top)
        most = max([1.0, *(value(point) for point in self.timeline.points)])
        base = top + tall
        self._text(_LEFT - 6, top + 9, f"{most:g}", "end")
        self._text(_LEFT - 6, base, "0", "end")
        self._add("line", x1=_LEFT, x2=_WIDTH, y1=base, y2=base, class_="grid")
        path = f"M{_LEFT:.1f} {base:.1f}"
        for point in self.timeline.points:
            path += f"H{self.x(point.at_ns):.1f}V{base - tall * value(point) / most:.1f}"
        self._add("path", d=f"{path}H{_WIDTH:.1f}", class_="steps")
