"""A real container runtime, or a failure that names what is missing: all of it is installed by scripts/setup.sh."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.cni_runtime import Agent
from tests.cluster.containerd import Containerd, conflist, containerd
from tests.cluster.node_agent import Node
from tests.traces import leaves_nothing as leaves_nothing


def pytest_collection_modifyitems(config, items):
    if os.geteuid() == 0:
        return
    if os.environ.get("CI"):
        raise pytest.UsageError("CI must run the cluster tests as root")
    for item in items:
        if "tests/cluster" in item.path.as_posix():
            item.add_marker(pytest.mark.skip(reason="probe failed: not root"))


@pytest.fixture(scope="module")
def runtime() -> Iterator[Containerd]:
    """A containerd for all tests of a module, with Debian's bridge as its primary CNI. A test takes away what it adds.

    It takes a second. One for the whole session would outlive the check that no test left a namespace.
    """
    with containerd() as made:
        made.write_conflist(conflist("podnet0"))
        made.until(made.network_ready, "the network is ready")
        yield made


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node whose agent does not run yet."""
    return Node(tmp_path)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent at work; at the end it had no troubles, and no pod is left with it."""
    made = Agent(tmp_path / "node")
    with made.running():
        yield made
    assert made.troubles == []
    assert not list(made.directory.glob("attachments/*"))


@pytest.fixture
def asked(runtime: Containerd, monkeypatch: pytest.MonkeyPatch) -> Containerd:
    """The same, and ackward asks it for pods."""
    monkeypatch.setenv("CONTAINER_RUNTIME_ENDPOINT", f"unix://{runtime.socket}")
    return runtime
