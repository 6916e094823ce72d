"""What docs/kubernetes.md and the code say is the same."""

from __future__ import annotations

import re
from pathlib import Path

from ackward.cli import node
from ackward.node.metrics import Metrics
from ackward.node.places import Places

ROOT = Path(__file__).parents[2]
REPAIRS = (ROOT / "src/ackward/node/repairs.py").read_text()
DOCS = (ROOT / "docs/kubernetes.md").read_text()


def test_every_metric_is_documented_and_no_other() -> None:
    exposed = set()
    for family in Metrics().registry.collect():
        if family.name.startswith("ackward_"):
            exposed.add(family.name + ("_total" if family.type == "counter" else ""))
    assert set(re.findall(r"`(ackward_node_[a-z_]+)(?:\{[a-z,]+\})?`", DOCS)) == exposed


def test_what_running_pods_are_repaired_of_is_told_alike() -> None:
    repaired = Metrics().repaired
    (row,) = re.findall(r"\| `ackward_node_repaired_total\{way\}` \| (.*) \|", DOCS)
    ways = re.findall(r"`(\w+)`", row)
    assert re.findall(r"(\w+):", repaired._documentation.partition("(")[2]) == ways
    assert set(re.findall(r'self\._told\(\s*"(\w+)"', REPAIRS)) <= set(ways)


def test_the_commands_places_are_those_of_the_node() -> None:
    """They stand in both: `ackward --help` imports nothing of a node."""
    places = (node._CONFIGURATION, node._BINARIES, node._RUN, node._MARKER)
    assert Places(*places) == Places()


def test_its_directories_and_the_tests_that_it_names_are_there() -> None:
    for name in set(
        re.findall(r"`(deploy/[a-z-]+|tests/[a-z_/]+\.py|src/[a-zA-Z_/.]+|docs/[a-z]+\.md)`", DOCS)
    ):
        assert (ROOT / name).exists(), name
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in set(re.findall(r"`(test_[a-z_]+)`", DOCS)):
        assert f"def {name}(" in tests, name


def test_it_names_the_port_that_is_the_agents_own() -> None:
    listen = node.agent.__defaults__
    assert listen is not None
    assert "127.0.0.1:9791" in listen
    assert "127.0.0.1:9791" in DOCS
