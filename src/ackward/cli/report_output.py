"""A report on its way to a person, a program and a page."""

from __future__ import annotations

from pathlib import Path

from ackward.cli.output import data, print_json, talk, write_file
from ackward.model.report import Report


def show(report: Report, *, as_json: bool, page: Path | None, title: str) -> None:
    """Print a report, and write its page if one was asked for."""
    if page:
        from ackward.report.html import render

        write_file(page, render(report, title=title, subtitle=report.capture.source))
    if as_json:
        print_json(report.to_json())
    else:
        from ackward.report.terminal import report_view

        data.print(report_view(report))
    if page:
        talk.print(f"report: {page}")
