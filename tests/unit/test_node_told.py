"""What the outside sees of the agent: the levels of its log, and its numbers."""

from __future__ import annotations

import json
import logging

import pytest

from ackward.node import logs, standing
from ackward.node.metrics import Metrics
from ackward.node.standing import Standing


@pytest.mark.parametrize(
    ("event", "fields", "level"),
    [
        ("pod repaired", {"changed": ("a route",), "problems": ()}, "info"),
        ("marker removed", {"path": "/run/marker"}, "info"),
        ("pod not repaired", {"problems": ("bypass: was not tried",)}, "warning"),
        ("annotations make no sense", {"complaints": ("?",)}, "warning"),
        ("request served", {"code": 101, "error": "failurePolicy is closed"}, "warning"),
        ("pods not followed", {"error": "the API server does not answer"}, "warning"),
    ],
)
def test_what_needs_somebody_is_a_warning(
    event: str, fields: dict[str, object], level: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ackward.node"):
        logs.tell(event, **fields)
    (record,) = caplog.records
    assert json.loads(logs._Lines().format(record))["level"] == level


def test_every_way_of_repair_has_its_series_from_the_start_and_no_series_tells_of_its_beginning() -> None:
    text = Metrics().text().decode()
    for way in ("missed", "lost", "running", "withdrawn"):
        assert f'ackward_node_repaired_total{{way="{way}"}} 0.0' in text
    assert "_created" not in text


def test_words_are_news_until_they_have_been_said_and_again_when_they_had_gone() -> None:
    said = Standing()
    assert said.news("c", "eth0", ["one", "two"]) == ("one", "two")
    assert said.news("c", "eth0", ["two", "three"]) == ("three",)
    assert said.news("c", "eth1", ["two"]) == ("two",)
    assert said.news("c", "eth0", []) == ()
    assert said.news("c", "eth0", ["two"]) == ("two",)


def test_of_many_pods_the_one_looked_at_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "_MOST_PODS", 2)
    said = Standing()
    for name in ("one", "two", "one", "three"):
        said.news(name, "eth0", ["is so"])
    assert said.news("one", "eth0", ["is so"]) == ()
    assert said.news("two", "eth0", ["is so"]) == ("is so",)
