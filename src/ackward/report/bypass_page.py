"""The experiment ``bypass`` as one HTML page: charts and tables."""

from __future__ import annotations

from markupsafe import Markup

from ackward.model.bypass_lab import BypassReport
from ackward.report import bypass_chart, bypass_table
from ackward.report.html import environment, policy, source


def render(report: BypassReport) -> str:
    """The whole page. Pure: the same input gives the same text."""
    style = source("report.css") + source("toggle.css") + bypass_chart.css()
    return (
        environment()
        .get_template("bypass.html")
        .render(
            title="ackward lab: bypass",
            policy=policy(style, ""),
            style=Markup(style),  # noqa: S704 - our own file
            report=report,
            charts=[
                (title, Markup(picture))  # noqa: S704 - built as a tree
                for title, picture in bypass_chart.charts(report)
            ],
            tables=[
                (bypass_table.MESSAGES, [bypass_table.message_cells(each) for each in report.messages]),
                (bypass_table.SERVERS, [bypass_table.server_cells(each) for each in report.servers]),
            ],
        )
    )
