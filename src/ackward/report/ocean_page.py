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
    ladder = base64.b64encode(split_ladder.draw(report.prediction).encode()).decode()
    return (
        environment()
        .get_template("ocean.html")
        .render(
            title="ackward lab: ocean",
            policy=policy(style, ""),
            style=Markup(style),  # noqa: S704 - our own file
            report=report,
            meanings=ocean_table.MEANING,
            crossings=[_card(crossing) for crossing in report.crossings],
            ladder=f"data:image/svg+xml;base64,{ladder}",
        )
    )


def _card(crossing: Crossing) -> dict[str, object]:
    sizes = sorted({transfer.size_bytes for transfer in crossing.transfers})
    return {
        "title": ocean_table.condition(crossing),
        "charts": [
            (
                size(octets),
                Markup(  # noqa: S704 - built as a tree
                    ocean_chart.draw([each for each in crossing.transfers if each.size_bytes == octets])
                ),
            )
            for octets in sizes
        ],
        "rows": list(ocean_table.rows(crossing)),
    }
