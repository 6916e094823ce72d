"""The ladder of a split transfer as one SVG file: a panel a variant, a life line a node, time downward.

Laws: time is to scale and the same in all panels, so lower is later, also between panels. Nodes stand as far apart as
their legs are long (but never nearer than ``LEAST_APART``), so that what travels at one speed has one slope.
Colour is never the only sign: data is thick, ACKs are dashed, and each message says what it is when pointed at.
"""

from __future__ import annotations

import textwrap
from itertools import accumulate
from xml.etree import ElementTree as ET

from ackward.model import units
from ackward.model.causes import Cause
from ackward.model.split import MEANING, Hop, HopKind, Ladder, SplitPrediction
from ackward.report import palette
from ackward.report.ladder import Label, place

LEAST_APART = 22.0
_SPAN = 190.0  # from the client's line to the server's
_GUTTER = 162.0  # for the moments, left of the client
_MARGIN = 26.0
_HEAD, _FOOT = 64.0, 34.0
_DEPTH = 400.0  # of the slowest variant
_LINE = 15.0
_TITLE, _LETTER = 18.0, 8.2  # of the title: a line, and a letter's mean width

_HANDSHAKE, _REQUEST, _DATA, _ACK = "handshake", "request", "data", "ack"
_CLASS: dict[HopKind, str] = {
    "syn": _HANDSHAKE, "syn-ack": _HANDSHAKE, "announce": _HANDSHAKE, "answer": _HANDSHAKE,
    "request": _REQUEST, "data": _DATA, "ack": _ACK,
}  # fmt: skip
_SAYS: dict[HopKind, str] = {
    "syn": "SYN", "syn-ack": "SYN-ACK", "ack": "ACK", "request": "request",
    "announce": "SYN as payload of the pooled leg", "answer": "the server accepted", "data": "data",
}  # fmt: skip
_STYLE = f"""
svg {{ --paper: {palette.PAPER[0]}; --ink: #1b1f24; --muted: #5a6370; background: var(--paper);
  font: 12px system-ui, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif; }}
@media (prefers-color-scheme: dark) {{ svg {{ --paper: {palette.PAPER[1]}; --ink: #e4e7eb; --muted: #9aa4b1; }} }}
text {{ fill: var(--muted); font-variant-numeric: tabular-nums; }}
.name, .moment {{ fill: var(--ink); }} .name {{ font-size: 14px; font-weight: 650; }} .end {{ font-size: 11px; }}
.life {{ stroke: var(--muted); stroke-width: 1.2; }} .leader {{ stroke: var(--muted); stroke-width: 0.8; }}
.hop {{ stroke-width: 1.5; }} .hop.handshake {{ stroke: {palette.CAUSES[Cause.HANDSHAKE]}; }}
.hop.request {{ stroke: {palette.CAUSES[Cause.SERVER]}; stroke-width: 2; }}
.hop.data {{ stroke: {palette.CAUSES[Cause.CONGESTION_WINDOW]}; stroke-width: 3; }}
.hop.ack {{ stroke: {palette.CAUSES[Cause.NETWORK]}; stroke-dasharray: 4 3; }}
.dot {{ fill: var(--ink); }}
"""


def draw(prediction: SplitPrediction, *, panels: int = 3) -> str:
    """The whole file, ``panels`` side by side. Pure: the same prediction gives the same text."""
    return _Drawing(prediction, panels).svg()


class _Drawing:
    """One SVG under construction."""

    def __init__(self, prediction: SplitPrediction, panels: int) -> None:
        self.prediction = prediction
        self.panels = panels
        legs = [leg.rtt_ns for leg in prediction.input.legs]
        self.x = list(
            accumulate((max(LEAST_APART, _SPAN * leg / sum(legs)) for leg in legs), initial=_GUTTER)
        )
        self.latest = max(ladder.download_ns for ladder in prediction.ladders)
        self.wide = self.x[-1] + 2 * _MARGIN
        self.whole = panels * self.wide
        self.root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})

    def svg(self) -> str:
        given = self.prediction.input
        legs = " + ".join(units.duration(leg.rtt_ns) for leg in given.legs)
        title = (
            f"{units.size(self.prediction.ladder_bytes)} over {legs}, directly {units.duration(given.direct.rtt_ns)}: "
            f"who sends what when, time downward, to scale"
        )
        ET.SubElement(self.root, "title").text = title
        ET.SubElement(self.root, "style").text = _STYLE
        top = 24.0
        for line in textwrap.wrap(title, round((self.whole - 2 * _MARGIN) / _LETTER)):
            self._text(self.root, _MARGIN, top, line, "name")
            top += _TITLE
        ladders = self.prediction.ladders
        for row in (ladders[first : first + self.panels] for first in range(0, len(ladders), self.panels)):
            for column, ladder in enumerate(row):
                position = f"translate({column * self.wide:.1f} {top:.1f})"
                self._panel(self._add(self.root, "g", transform=position), ladder)
            top += _HEAD + self._down(max(ladder.download_ns for ladder in row)) + _FOOT
        width, height = self.whole, self._legend(top) + _LINE
        self.root.attrib |= {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}"}
        return ET.tostring(self.root, encoding="unicode") + "\n"

    def _panel(self, group: ET.Element, ladder: Ladder) -> None:
        hops = _shown(ladder)
        used = sorted({node for hop in hops for node in (hop.sender, hop.receiver)})
        self._text(group, _MARGIN, 18, ladder.variant, "name")
        self._text(group, _MARGIN, 34, MEANING[ladder.variant], "end")
        bottom = _HEAD + self._down(ladder.download_ns) + 6
        for node in used:
            self._line(group, (self.x[node], _HEAD - 4), (self.x[node], bottom), "life")
        for node, name, anchor in ((0, "client", "middle"), (len(self.x) - 1, "server", "middle")):
            self._text(group, self.x[node], _HEAD - 10, name, "end", anchor)
        if len(used) > 2:
            middle = (self.x[1] + self.x[-2]) / 2
            self._text(group, middle, _HEAD - 10, "gateways" if len(used) > 3 else "gateway", "end", "middle")
        for hop in hops:
            self._hop(group, hop)
        self._moments(group, ladder)

    def _hop(self, group: ET.Element, hop: Hop) -> None:
        line = self._line(
            group,
            (self.x[hop.sender], _HEAD + self._down(hop.at_ns)),
            (self.x[hop.receiver], _HEAD + self._down(hop.arrives_ns)),
            f"hop {_CLASS[hop.kind]}",
        )
        what = _SAYS[hop.kind] + (f", {units.plural(hop.segments, 'segment')}" if hop.segments else "")
        words = f"{what}: leaves at {units.instant(hop.at_ns)}, arrives at {units.instant(hop.arrives_ns)}"
        ET.SubElement(line, "title").text = words

    def _moments(self, group: ET.Element, ladder: Ladder) -> None:
        """What the client sees, beside its life line."""
        connected = next(hop.arrives_ns for hop in ladder.hops if hop.kind == "syn-ack" and hop.receiver == 0)
        seen = {
            "connected": connected,
            "answer begins": ladder.first_byte_ns,
            "answer ends": ladder.download_ns,
        }
        labels = [
            Label((f"{name} {units.duration(at)}",), _HEAD + self._down(at)) for name, at in seen.items()
        ]
        for label in place(labels, above=_HEAD):
            middle = label.top + label.tall / 2
            self._text(group, self.x[0] - 14, middle + 4, label.lines[0], "moment", "end")
            self._line(group, (self.x[0] - 11, middle), (self.x[0] - 3, label.wanted), "leader")
            self._add(group, "circle", cx=f"{self.x[0]:.1f}", cy=f"{label.wanted:.1f}", r="2.6", class_="dot")

    def _legend(self, y: float) -> float:
        """Below each other where they do not fit beside each other; gives the last line's place."""
        x = _MARGIN
        for class_, words in (
            (_HANDSHAKE, "handshake, or a SYN as payload"),
            (_REQUEST, "request"),
            (_DATA, "a flight of data"),
            (_ACK, "ACK"),
        ):
            wide = 60 + 6.2 * len(words)
            if x > _MARGIN and x + wide > self.whole:
                x, y = _MARGIN, y + _LINE
            self._line(self.root, (x, y - 4), (x + 26, y - 4), f"hop {class_}")
            self._text(self.root, x + 32, y, words, "end")
            x += wide
        return y

    def _down(self, ns: int) -> float:
        return _DEPTH * ns / self.latest

    def _add(self, parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
        return ET.SubElement(parent, tag, {name.rstrip("_"): value for name, value in attributes.items()})

    def _line(
        self, parent: ET.Element, start: tuple[float, float], end: tuple[float, float], class_: str
    ) -> ET.Element:
        (x1, y1), (x2, y2) = ((f"{x:.1f}", f"{y:.1f}") for x, y in (start, end))
        return self._add(parent, "line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)

    def _text(
        self, parent: ET.Element, x: float, y: float, text: str, class_: str, anchor: str = "start"
    ) -> None:
        element = self._add(parent, "text", x=f"{x:.1f}", y=f"{y:.1f}", class_=class_)
        element.set("text-anchor", anchor)
        element.text = text


def _shown(ladder: Ladder) -> list[Hop]:
    """What arrives with the answer's end or before: ACKs after it change nothing any more."""
    return [hop for hop in ladder.hops if hop.arrives_ns <= ladder.download_ns]
