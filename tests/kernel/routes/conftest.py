"""A host with routes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kernel.quickack_hosts import router

from ackward.kernel.namespaces import Namespace


@pytest.fixture
def host() -> Iterator[Namespace]:
    with router() as made:
        yield made
