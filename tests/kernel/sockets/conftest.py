"""A host, and a connection over its loopback, of either family."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kernel.sockets.pairs import Pair

from ackward.kernel.namespaces import Namespace, temporary


@pytest.fixture
def host() -> Iterator[Namespace]:
    with temporary("sockets") as namespace:
        yield namespace


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(host: Namespace, request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(host, request.param)
    yield made
    made.close()
