"""An agent that does not run yet, and a pod's namespace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.cni_runtime import Agent, wired_pod

from ackward.kernel.namespaces import Namespace


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    made = Agent(tmp_path / "node")
    made.directory.mkdir()
    return made


@pytest.fixture
def here() -> Iterator[Namespace]:
    with wired_pod() as made:
        yield made
