"""The report as one HTML file that opens offline and asks for nothing.

Three walls stand between the page and the names in a capture, which may be hostile: Jinja2 escapes every
expression, :func:`names.visible` runs over every expression (so nothing can be hidden or reordered), and a
Content-Security-Policy allows this page's one style sheet and one script, by their hashes, and no request.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ackward.model import names, units
from ackward.model.causes import End
from ackward.model.report import Finding, Report
from ackward.model.verdict import Phase, Verdict
from ackward.report import flow_table, ladder, palette, sequence, summary

#: Findings whose cards are open when the page opens.
OPEN_FINDINGS = 3
#: Findings that are drawn; the rest are told in words. A drawing takes some 20 kB, and a busy host gives thousands.
DRAWN_FINDINGS = 50
#: What the time-sequence plots need; the last one draws them.
PLOT_SCRIPTS = ("sequence_numbers.js", "sequence_input.js", "sequence.js")


def render(
    report: Report,
    *,
    verdict: Verdict | None = None,
    phases: Sequence[Phase] = (),
    title: str,
    subtitle: str = "",
) -> str:
    """The whole page. Pure: the same input gives the same text."""
    style = source("report.css") + palette.css()
    plotted = any(finding.sequence for finding in report.findings)
    script = "".join(map(source, ("report.js", *(PLOT_SCRIPTS if plotted else ()))))
    table = flow_table.table_of(report.flows)
    measures = summary.measures(verdict, phases)
    return (
        environment()
        .get_template("report.html")
        .render(
            title=title,
            subtitle=subtitle,
            policy=policy(style, script),
            style=Markup(style),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            report=report,
            verdict=verdict,
            measures=measures,
            longest_ns=max((measure.p99_ns for _, measure in measures), default=0),
            parts=summary.partition(report),
            findings=[
                _card(finding, number) for number, finding in enumerate(summary.worst_first(report), 1)
            ],
            table=table,
            flows_json=_data([column.as_json() for column in table.columns]),
        )
    )


def _card(finding: Finding, number: int) -> dict[str, object]:
    """What a finding's template needs beyond the finding itself."""
    ends = [
        {
            "end": end,
            "address": finding.client if end is End.CLIENT else finding.server,
            "owner": summary.owner(finding.client_process if end is End.CLIENT else finding.server_process),
            "role": summary.role(finding, end),
        }
        for end in End
    ]
    steps = finding.ladder.steps if finding.ladder else []
    drawing = ""
    drawn = number <= DRAWN_FINDINGS
    if finding.ladder is not None and drawn:
        drawing = ladder.draw(finding.ladder, finding.cause, finding.holding_end, f"ladder-{number}")
    return {
        "number": number,
        "open": number <= OPEN_FINDINGS,
        "finding": finding,
        "ends": ends,
        "ladder": Markup(drawing),  # noqa: S704 - built as a tree, escaped by its serialiser
        "lost": any(step.kind == "segment" and step.arrives_ns is None for step in steps),
        "left_out": sum(step.left_out for step in steps),
    } | _plot(finding if drawn else None)


def _plot(finding: Finding | None) -> dict[str, object]:
    """What the template needs to show the finding's time-sequence plot."""
    if finding is None or finding.sequence is None:
        return {"sequence": ""}
    return {
        "sequence": _data(sequence.packed(finding.sequence, finding.cause)),
        "seen": sequence.seen(finding.sequence),
        "neighbours": sequence.has_neighbours(finding.sequence),
    }


@functools.cache
def environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ackward.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals.update(summary=summary, units=units)
    environment.filters.update(
        duration=units.duration,
        count=units.count,
        exact=units.nanoseconds,
        prose=names.prose,
        unbroken=_unbroken,
    )
    return environment


def _shown(value: object) -> object:
    """What an expression in a template writes: our own markup as it is, all other text made visible."""
    return names.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _unbroken(text: str) -> Markup:
    """Each word with a hyphen, such as a cause, in one piece: a browser would break the line behind the hyphen."""
    word = Markup('<span class="word">{}</span>')
    words = names.visible(text).split(" ")
    return Markup(" ").join(word.format(each) if "-" in each else each for each in words)


def source(name: str) -> str:
    text, _, _ = PackageLoader("ackward.report").get_source(Environment(autoescape=True), name)
    return text


def _data(value: object) -> Markup:
    """JSON to stand inside a script element: nothing in it can end the element or open a comment there."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - pure ASCII without <, > and &


def policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(source: str) -> str:
    """A CSP hash source (CSP level 3, section 2.3.1) for an inline element whose whole text is ``source``."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
