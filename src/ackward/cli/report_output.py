"""A report on its way to a person, a program and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ackward.cli.output import data, print_json, talk, writable, write_file

if TYPE_CHECKING:
    from ackward.model.report import Report

Page = Annotated[
    Path | None, typer.Option("--report", help="write the report as one HTML page", callback=writable)
]


def show(report: Report, *, as_json: bool, page: Path | None, title: str) -> None:
    """Print a report, and write its page if one was asked for."""
    if as_json:
        print_json(report.to_json())
    else:
        from ackward.report.terminal import report_view

        data.print(report_view(report))
    if page:
        from ackward.report.html import render

        write_file(page, render(report, title=title, subtitle=report.capture.source))
        talk.print(f"report: {page}", markup=False)
