"""One size of the experiment ``ocean`` as bars: each way's first byte and download, and where they were predicted.

Lengths are shares of the picture's width and words stand above their bar, so that a narrow window shortens bars and
cuts no word.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from ackward.model.causes import Cause
from ackward.model.ocean import Transfer
from ackward.model.units import duration
from ackward.report import palette

_ROW, _BAR, _WORDS, _TOP = 38.0, 13.0, 17.0, 2.0
#: The rest is for the half of a mark that stands at the very end.
_PERCENT = 99.5


def css() -> str:
    """The chart's rules, and those of its legend."""
    until, after = palette.CAUSES[Cause.HANDSHAKE], palette.CAUSES[Cause.CONGESTION_WINDOW]
    return f"""
svg.ocean {{ display: block; max-width: 844px; margin-top: 8px; font: 12px var(--sans); }}
.ocean text {{ fill: var(--ink); font-variant-numeric: tabular-nums; }} .ocean .way {{ font-weight: 650; }}
.ocean .until {{ fill: {until}; }} .ocean .after {{ fill: {after}; }}
.ocean .expected {{ stroke: var(--ink); stroke-width: 2; }}
.legend .key {{ display: inline-block; height: 13px; margin-right: 7px; vertical-align: -2px; }}
.legend .key, .ocean * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
.legend .until {{ width: 26px; background: {until}; }} .legend .after {{ width: 26px; background: {after}; }}
.legend .expected {{ width: 2px; margin-left: 12px; margin-right: 19px; background: var(--ink); }}
.conclusions {{ color: var(--ink); font-variant-numeric: tabular-nums; }} .conclusions li {{ max-width: none; }}
img.whole {{ display: block; max-width: 100%; height: auto; }}
"""


def draw(transfers: Sequence[Transfer]) -> str:
    """The picture. Bars are to scale; a mark stands where the model expects the first byte and the end."""
    latest = max(
        max(each.median.download_ns, each.predicted.download_ns if each.predicted else 0)
        for each in transfers
    )
    high = f"{_TOP + _ROW * len(transfers):.0f}"
    root = ET.Element("svg", {"class": "ocean", "width": "100%", "height": high, "role": "img"})
    ET.SubElement(root, "title").text = "first byte and download by way, measured and predicted"
    for number, transfer in enumerate(transfers):
        _row(root, transfer, _TOP + _ROW * number, _PERCENT / latest)
    return ET.tostring(root, encoding="unicode")


def _row(root: ET.Element, transfer: Transfer, top: float, scale: float) -> None:
    first, last = transfer.median.first_byte_ns, transfer.median.download_ns
    words = ET.SubElement(root, "text", {"x": "0", "y": f"{top + _WORDS - 4:.1f}"})
    name = ET.SubElement(words, "tspan", {"class": "way"})
    name.text, name.tail = transfer.way, f": first byte {duration(first)}, download {duration(last)}"
    bar_top = top + _WORDS
    for kind, start, end, said in (
        ("until", 0, first, f"first byte after {duration(first)}"),
        ("after", first, last, f"all of it after {duration(last)}"),
    ):
        box = {"x": f"{start * scale:.2f}%", "width": f"{max(end - start, 0) * scale:.2f}%"}
        bar = ET.SubElement(root, "rect", {"class": kind, **box, "y": f"{bar_top:.1f}", "height": f"{_BAR}"})
        ET.SubElement(bar, "title").text = said
    if transfer.predicted is None:
        return
    for moment in (transfer.predicted.first_byte_ns, transfer.predicted.download_ns):
        x = f"{moment * scale:.2f}%"
        ends = {"x1": x, "x2": x, "y1": f"{bar_top:.1f}", "y2": f"{bar_top + _BAR + 4:.1f}"}
        mark = ET.SubElement(root, "line", {"class": "expected", **ends})
        ET.SubElement(mark, "title").text = f"predicted: {duration(moment)}"
