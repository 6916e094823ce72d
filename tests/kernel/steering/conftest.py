"""A host, a cgroup of this run, and receipts whose remedies are undone: a test may leave what it applied in force."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.steering_hosts import cgroup

from ackward import remedies
from ackward.kernel.namespaces import Namespace, temporary
from ackward.remedies.receipts import Receipts


@pytest.fixture(autouse=True, scope="module")
def _places(pins: None) -> Iterator[None]:
    with cgroup():
        yield


@pytest.fixture
def host() -> Iterator[Namespace]:
    with temporary("host") as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Receipts]:
    made = Receipts(tmp_path / "ackward")
    yield made
    for receipt in made.load().receipts:
        remedies.load(receipt.remedy).undo(receipt, made)
