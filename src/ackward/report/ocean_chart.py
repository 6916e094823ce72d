"""One size of the experiment ``ocean`` as bars: each way's first byte and download, and where they were predicted."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from ackward.model.causes import Cause
from ackward.model.ocean import Transfer
from ackward.model.units import duration
from ackward.report import palette

_LEFT, _WIDTH, _RIGHT = 74.0, 620.0, 150.0
_ROW, _BAR, _TOP = 30.0, 16.0, 8.0


def css() -> str:
    """The chart's rules."""
    return f"""
svg.ocean {{ display: block; font: 11.5px var(--sans); font-variant-numeric: tabular-nums; margin-top: 10px; }}
.ocean text {{ fill: var(--ink); }} .ocean .until {{ fill: {palette.CAUSES[Cause.HANDSHAKE]}; }}
.ocean .after {{ fill: {palette.CAUSES[Cause.CONGESTION_WINDOW]}; }}
.ocean .expected {{ stroke: var(--ink); stroke-width: 2; }}
"""


def draw(transfers: Sequence[Transfer]) -> str:
    """The picture. Bars are to scale; a mark stands where the model expects the first byte and the end."""
    latest = max(
        max(each.median.download_ns, each.predicted.download_ns if each.predicted else 0)
        for each in transfers
    )
    high = _TOP + _ROW * len(transfers)
    wide = _LEFT + _WIDTH + _RIGHT
    root = ET.Element(
        "svg",
        {"class": "ocean", "viewBox": f"0 0 {wide:.0f} {high:.0f}", "width": f"{wide:.0f}", "role": "img"},
    )
    ET.SubElement(root, "title").text = "first byte and download by way, measured and predicted"
    for number, transfer in enumerate(transfers):
        _row(root, transfer, _TOP + _ROW * number, _WIDTH / latest)
    return ET.tostring(root, encoding="unicode")


def _row(root: ET.Element, transfer: Transfer, top: float, scale: float) -> None:
    first, last = transfer.median.first_byte_ns * scale, transfer.median.download_ns * scale
    _text(root, _LEFT - 8, top + 12, transfer.way, "end")
    for kind, start, end, words in (
        ("until", 0.0, first, f"first byte after {duration(transfer.median.first_byte_ns)}"),
        ("after", first, last, f"all of it after {duration(transfer.median.download_ns)}"),
    ):
        bar = ET.SubElement(
            root,
            "rect",
            {
                "class": kind,
                "x": f"{_LEFT + start:.1f}",
                "y": f"{top:.1f}",
                "width": f"{max(end - start, 0.5):.1f}",
                "height": f"{_BAR}",
            },
        )
        ET.SubElement(bar, "title").text = words
    beyond = last
    if transfer.predicted:
        beyond = max(last, transfer.predicted.download_ns * scale)
        for moment in (transfer.predicted.first_byte_ns, transfer.predicted.download_ns):
            x = f"{_LEFT + moment * scale:.1f}"
            mark = ET.SubElement(
                root,
                "line",
                {
                    "class": "expected",
                    "x1": x,
                    "x2": x,
                    "y1": f"{top - 3:.1f}",
                    "y2": f"{top + _BAR + 3:.1f}",
                },
            )
            ET.SubElement(mark, "title").text = f"predicted: {duration(moment)}"
    measured = f"{duration(transfer.median.first_byte_ns)}, {duration(transfer.median.download_ns)}"
    _text(root, _LEFT + beyond + 8, top + 12, measured, "start")


def _text(root: ET.Element, x: float, y: float, text: str, anchor: str) -> None:
    ET.SubElement(root, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}).text = text
