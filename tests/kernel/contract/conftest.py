"""A remedy and a scope of it, and a host to apply it to."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.kernel import steering_hosts
from tests.kernel.contract.cases import SCOPES, Case
from tests.kernel.quickack_hosts import router

from ackward import remedies
from ackward.kernel.namespaces import Namespace


@pytest.fixture(
    params=[(name, scope) for name in remedies.NAMES for scope in SCOPES[name]],
    ids=lambda pair: (
        f"{pair[0]}-{pair[1].words.replace(' ', '-').replace('/', '_').replace(str(os.getpid()), 'N')}"
    ),
)
def case(request: pytest.FixtureRequest) -> Case:
    name, scope = request.param
    return Case(remedies.load(name), scope)


@pytest.fixture(autouse=True, scope="module")
def _places(pins: None) -> Iterator[None]:
    with steering_hosts.cgroup():
        yield


@pytest.fixture
def host() -> Iterator[Namespace]:
    with router() as made, steering_hosts.connections(made):
        yield made
