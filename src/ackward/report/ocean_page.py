"""The experiment ``ocean`` as one HTML page: charts, tables, and the predicted ladder."""

from __future__ import annotations

import base64

from markupsafe import Markup

from ackward.model.ocean import Crossing, OceanReport
from ackward.model.units import size
from ackward.report import ocean_chart, ocean_table, split_ladder
from ackward.report.html import environment, policy, source


def render(report: OceanReport) -> str:
    """The whole page. Pure: the same input gives the same text."""
    style = source("report.css") + source("toggle.css") + ocean_chart.css()
    return (
        environment()
        .get_template("ocean.html")
        .render(
            title="ackward lab: ocean",
            policy=policy(style, ""),
            style=Markup(style),  # noqa: S704 - our own file
            report=report,
            made=ocean_table.made(report),
            meanings=ocean_table.MEANING,
            headings=ocean_table.HEADINGS,
            crossings=[_card(crossing) for crossing in report.crossings],
            ladder=_picture(report, panels=3),
            narrow_ladder=_picture(report, panels=1),
        )
    )


def _picture(report: OceanReport, *, panels: int) -> str:
    svg = split_ladder.draw(report.prediction, panels=panels)
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _card(crossing: Crossing) -> dict[str, object]:
    return {
        "title": ocean_table.condition(crossing),
        "conclusions": list(ocean_table.conclusions(crossing)),
        "sizes": [
            {
                "title": size(octets),
                "repeated": ocean_table.repeated(transfers),
                "chart": Markup(ocean_chart.draw(transfers)),  # noqa: S704 - built as a tree
                "rows": list(ocean_table.rows(transfers)),
            }
            for octets, transfers in ocean_table.by_size(crossing)
        ],
    }
