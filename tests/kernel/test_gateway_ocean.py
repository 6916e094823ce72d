"""`lab run ocean`, small: every way takes as long as it was predicted to, and its report holds what it promises."""

from __future__ import annotations

import json

import pytest
from tests.kernel.lab_hosts import ackward

from ackward.model.ocean import OceanReport, Way
from ackward.report import ocean_page, ocean_table

WAYS = (Way.DIRECT, Way.POOL, Way.WINDOW, Way.FAITHFUL)
SETTINGS = {"ways": ",".join(WAYS), "losses": "0", "competing": "off", "size": 2_000_000, "rounds": 2}


@pytest.fixture(scope="module")
def done():
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    done = ackward("lab", "run", "ocean", *settings, "--json")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def report(done):
    return OceanReport.model_validate(json.loads(done.stdout))


def test_it_counts_its_transfers_and_says_beforehand_how_long_they_take(done):
    told = [line.strip() for line in done.stderr.splitlines()]
    assert "12 transfers, about 1 minute" in told
    counted = [line.split(":")[0] for line in told if " of 12: " in line]
    assert counted == [f"{number} of 12" for number in range(1, 13)]


def test_every_first_byte_and_download_comes_when_predicted(report):
    [crossing] = report.crossings
    assert [transfer.way for transfer in crossing.transfers] == [way for way in WAYS for _ in range(3)]
    for transfer in crossing.transfers:
        # The best round: what this machine does beside only delays.
        first = min(each.first_byte_ns for each in transfer.rounds) / transfer.predicted.first_byte_ns
        download = min(each.download_ns for each in transfer.rounds) / transfer.predicted.download_ns
        assert 0.9 < first <= 1.05, transfer
        assert 0.9 < download <= 1.10, transfer


def test_the_gain_is_the_talks(report):
    """San Francisco to Bangalore: 1.8 times sooner for the first byte, more than twice for three initial windows."""
    [crossing] = report.crossings
    direct, window = crossing.of(Way.DIRECT)[1].median, crossing.of(Way.WINDOW)[1].median
    assert direct.first_byte_ns / window.first_byte_ns > 1.65
    assert direct.download_ns / window.download_ns > 2.2


def test_the_page_and_the_table_name_every_way(report):
    page = ocean_page.render(report)
    for _, transfers in ocean_table.by_size(report.crossings[0]):
        assert [row[0] for row in ocean_table.rows(transfers)] == list(WAYS)
    for way in WAYS:
        assert f">{way}<" in page


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("ways=boat", "give some of direct"),
        ("legs=28,214", "three round trips"),
        ("losses=0.5", "shares"),
        ("rate=0", "Mbit/s"),
        ("links=tied", "a wire for each leg"),
    ],
)
def test_a_setting_that_means_nothing_is_explained(setting, hint):
    done = ackward("lab", "run", "ocean", "--set", setting)
    assert done.returncode == 2
    assert hint in done.stderr
