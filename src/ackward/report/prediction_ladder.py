"""A predicted round as a ladder: an SVG file that opens by itself, and lines of text for a terminal."""

from __future__ import annotations

from importlib import resources
from xml.etree import ElementTree as ET

from rich.table import Table
from rich.text import Text

from ackward.model import units
from ackward.model.causes import Cause, End
from ackward.model.prediction import AckPrediction
from ackward.model.report import LadderStep
from ackward.report import ladder, palette

_PAGE_RULES = "\nsvg { background: var(--paper); }\n"


def picture(prediction: AckPrediction) -> str:
    """The ladder of the shown round as an SVG document with its own style; it follows light and dark."""
    wait = max(prediction.waits, key=lambda each: each.end_ns - each.start_ns, default=None)
    cause, waiting = (wait.cause, wait.waiting) if wait else (Cause.NETWORK, None)
    drawn = ET.fromstring(ladder.draw(prediction.ladder, cause, waiting, "ladder"))  # noqa: S314 - drawn by us
    drawn.set("xmlns", "http://www.w3.org/2000/svg")
    style = ET.Element("style")
    sheet = resources.files("ackward.report").joinpath("templates", "report.css").read_text("utf-8")
    style.text = sheet + palette.css() + _PAGE_RULES
    drawn.insert(1, style)  # after the title, which stays the first child
    return ET.tostring(drawn, encoding="unicode") + "\n"


def lines(prediction: AckPrediction) -> Table:
    """The same as text: time, what the client does, the wire, what the server does."""
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(justify="right", overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("", Text("client", style="bold"), "", Text("server", style="bold"))
    steps = ladder.nearest_to_stalls(prediction.ladder)
    rows = [(step.at_ns, 0, step) for step in steps]
    rows += [(step.arrives_ns, 1, step) for step in steps if step.arrives_ns is not None and step.note]
    for at, arriving, step in sorted(rows, key=lambda row: row[:2]):
        words, wire = (_arrival(step), "") if arriving else (_said(step), _wire(step))
        at_client = (step.sender is End.CLIENT) != bool(arriving)
        table.add_row(units.instant(at), words if at_client else "", wire, "" if at_client else words)
    if left_out := len(prediction.ladder.steps) - len(steps):
        table.add_row("", f"{units.plural(left_out, 'step')} left out", "", "")
    return table


def _said(step: LadderStep) -> Text:
    if step.kind != "segment":
        return Text(step.note, style="yellow")
    what = f"{step.bytes} B seq {step.seq} ack {step.ack}" if step.bytes else f"ack {step.ack}"
    return Text.assemble(what, (f"  {step.note}" if step.note else "", "bold"))


def _arrival(step: LadderStep) -> Text:
    return Text(f"it arrives ({step.note.partition(':')[0]})", style="dim")


def _wire(step: LadderStep) -> str:
    if step.kind != "segment":
        return ""
    return "──>" if step.sender is End.CLIENT else "<──"
