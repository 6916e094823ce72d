"""The experiment ``ocean`` as a page and on a terminal: its conclusion, its legend, and what can be compared."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from tests.unit import ocean_factory

from ackward.lab.ocean import expected_seconds
from ackward.lab.scenarios import EXPERIMENTS
from ackward.lab.scenarios.ocean import EXPERIMENT
from ackward.model.ocean import Way
from ackward.report import ocean_chart, ocean_page, ocean_table, split_ladder


def test_the_conclusion_compares_the_gateways_with_what_stood_in_their_place():
    lines = list(ocean_table.conclusions(ocean_factory.crossed().crossings[0]))
    assert len(lines) == 6  # three sizes against two others
    [line] = [line for line in lines if line.startswith("39.1 kB") and "direct" in line]
    assert line == (
        "39.1 kB, window against the direct connection: first byte 550 ms -> 308 ms, 1.79x; "
        "download 830 ms -> 344 ms, 2.41x"
    )


@pytest.mark.parametrize(
    ("ways", "count"),
    [
        ((Way.DIRECT, Way.SPLIT), 3),
        ((Way.HAPROXY, Way.POOL), 3),
        ((Way.DIRECT, Way.HAPROXY), 0),
        ((Way.EARLY,), 0),
    ],
)
def test_without_one_side_there_is_no_conclusion(ways, count):
    report = ocean_factory.crossed(ways)
    assert len(list(ocean_table.conclusions(report.crossings[0]))) == count
    assert "Across an ocean" in ocean_page.render(report)


def test_the_ways_of_one_size_stand_together():
    for octets, transfers in ocean_table.by_size(ocean_factory.crossed().crossings[0]):
        assert [each.way for each in transfers] == list(Way)
        assert {each.size_bytes for each in transfers} == {octets}
        for row in ocean_table.rows(transfers):
            assert len(row) == len(ocean_table.HEADINGS)


def test_a_row_has_the_range_of_its_rounds_and_both_gains():
    _, transfers = list(ocean_table.by_size(ocean_factory.crossed().crossings[0]))[1]
    row = next(row for row in ocean_table.rows(transfers) if row[0] == Way.WINDOW)
    first, first_range, _, first_gain, download, download_range, _, download_gain = row[2:]
    assert (first, first_range, first_gain) == ("308 ms", "307 ms to 309 ms", "1.79x")
    assert (download, download_range, download_gain) == ("344 ms", "343 ms to 345 ms", "2.41x")


def test_the_page_opens_with_date_version_conclusion_and_legend():
    page = ocean_page.render(ocean_factory.crossed())
    head = page[: page.index("<h2>")]
    for words in (
        "ackward 1.2.3, Linux 6.18, 2026-11-23 02:26 UTC",
        "39.1 kB, window against HAProxy",
        "until the first byte",
        "as <code>ackward predict split</code> says",
    ):
        assert words in head, words
    assert "39.1 kB: medians of 3 rounds" in page
    assert not re.search(r'(src|srcset|href)="(?!data:)', page)


def test_a_bar_says_what_its_numbers_are_and_is_a_share_of_the_width():
    _, transfers = list(ocean_table.by_size(ocean_factory.crossed().crossings[0]))[1]
    root = ET.fromstring(ocean_chart.draw(transfers))
    words = ["".join(text.itertext()) for text in root.iter("text")]
    assert "window: first byte 308 ms, download 344 ms" in words
    for box in [*root.iter("rect"), *root.iter("line")]:
        for key in ("x", "width", "x1", "x2"):
            place = box.get(key)
            assert place is None or (place.endswith("%") and 0 <= float(place[:-1]) <= 100), place


def test_the_terminal_says_the_same():
    console = Console(file=io.StringIO(), width=80)
    console.print(ocean_table.view(ocean_factory.crossed()))
    told = " ".join(console.file.getvalue().split())
    for words in ("2026-11-23", "39.1 kB, window against HAProxy", "medians of 3 rounds", "343 ms to 345 ms"):
        assert words in told, words
    assert "…" not in told


@pytest.mark.parametrize("panels", [1, 3])
def test_the_ladder_is_as_wide_as_its_panels(panels):
    root = ET.fromstring(split_ladder.draw(ocean_factory.crossed().prediction, panels=panels))
    places = [group.get("transform") for group in root.findall("{*}g")]
    columns = {place.partition("(")[2].split()[0] for place in places}
    assert len(columns) == panels
    assert root.get("viewBox").split()[2] == root.get("width")


def test_how_long_a_run_takes_is_said_beforehand():
    """269 s were measured with the usual settings, 103 s with these."""
    assert expected_seconds(EXPERIMENT.settings) == pytest.approx(269, rel=0.15)
    short = EXPERIMENT.with_settings(["losses=0,0.01", "competing=off", "size=2000000", "harmed_size=100000"])
    assert expected_seconds(short.settings) == pytest.approx(103, rel=0.15)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda each: each.name)
def test_each_experiment_says_what_it_needs_how_long_it_takes_and_what_each_setting_takes(experiment):
    assert experiment.needs
    assert experiment.takes
    assert set(experiment.hints) == set(experiment.settings)
