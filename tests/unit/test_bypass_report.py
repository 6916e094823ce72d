"""The experiment ``bypass`` and the self-test's matrix, as tables, charts and a page."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree as ET

from rich.console import Console

from ackward.model.bypass import Capabilities, Finding, Hazard, Outcome
from ackward.model.bypass_lab import BypassReport, Message, Pairs, ServerLoad
from ackward.report import bypass_chart, bypass_table, capability_table
from ackward.report.bypass_page import render

REPORT = BypassReport(
    settings={"turns": 3, "seconds": 1},
    kernel="Linux 6.18",
    messages=[
        Message(
            size=64,
            latency_ns=Pairs(tcp=[8000, 9000, 10000], bypass=[4000, 4500, 10000]),
            bandwidth=Pairs(tcp=[800e6, 800e6, 800e6], bypass=[400e6, 300e6, 500e6]),
        )
    ],
    servers=[ServerLoad(name="<redis>", per_second=Pairs(tcp=[100], bypass=[150]), failed=0, redirected=7)],
    notes=("wrk is not installed",),
)
FOUND = Capabilities(
    kernel="6.18",
    boot_id="boot",
    engine="build",
    tried="2026-01-01T00:00:00+00:00",
    findings=(
        Finding(hazard=Hazard.OOB, outcome=Outcome.DIFFERS, measured="TCP OUT|PRI, here OUT"),
        Finding(hazard=Hazard.PEEK, outcome=Outcome.SAME, measured="in 2 of 2 dialogues"),
    ),
)


def shown(renderable) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    return console.file.getvalue()


def test_ratios_are_of_each_turn_and_tables_show_their_median_and_range():
    assert bypass_table.message_cells(REPORT.messages[0]) == (
        *("64 B", "9.0 us", "4.5 us", "0.500 (0.500 to 1.00)"),
        *("800 Mb/s", "400 Mb/s", "0.500 (0.375 to 0.625)"),
    )
    assert bypass_table.server_cells(REPORT.servers[0])[1:] == ("100", "150", "1.50 (1.50 to 1.50)", "0", "7")
    told = shown(bypass_table.view(REPORT))
    assert "64 B" in told
    assert "wrk is not installed" in told


def test_bars_point_to_the_right_where_the_bypass_is_better():
    latency, bandwidth, servers = (ET.fromstring(picture) for _, picture in bypass_chart.charts(REPORT))
    assert [bar.get("class") for bar in latency.iter("rect")] == ["faster"]
    assert [bar.get("class") for bar in bandwidth.iter("rect")] == ["slower"]
    assert [bar.get("class") for bar in servers.iter("rect")] == ["faster"]
    one = next(line for line in bandwidth.iter("line") if line.get("class") == "one")
    [bar] = bandwidth.iter("rect")
    assert float(bar.get("x")) + float(bar.get("width")) == float(one.get("x1"))


def test_the_page_asks_for_nothing_and_escapes_names():
    page = render(REPORT)
    assert "&lt;redis&gt;" in page
    assert "<redis>" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_markdown_tables_have_as_many_cells_as_headings():
    for text in (bypass_table.markdown(REPORT), capability_table.markdown(FOUND)):
        for table in filter(None, text.split("\n\n")):
            columns = {len(re.findall(r"(?<!\\)\|", row)) for row in table.strip().splitlines()}
            assert len(columns) == 1, table


def test_the_matrix_names_hazards_and_what_was_measured():
    told = shown(capability_table.view(FOUND))
    assert "oob" in told
    assert "TCP OUT|PRI, here OUT" in told
    assert [finding.hazard for finding in FOUND.differing()] == [Hazard.OOB]
