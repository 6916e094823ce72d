"""A remedy and a scope of it, a host to apply it to, and a store of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel import steering_hosts
from tests.kernel.bpf_file_system import bpf_file_system
from tests.kernel.contract.cases import SCOPES, Case
from tests.kernel.quickack_hosts import router

from ackward import remedies
from ackward.kernel import background
from ackward.kernel.namespaces import Namespace
from ackward.remedies.quickack import follower
from ackward.remedies.receipts import Receipts


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
def _places() -> Iterator[None]:
    with bpf_file_system(), steering_hosts.cgroup():
        yield


@pytest.fixture
def host() -> Iterator[Namespace]:
    with router() as made, steering_hosts.connections(made):
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Receipts]:
    made = Receipts(tmp_path / "ackward")
    yield made
    for lost in follower.running(made.directory):
        background.stop(lost)
