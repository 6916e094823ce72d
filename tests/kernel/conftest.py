"""The real kernel, or a skip that names what is missing. On CI nothing may be missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.bpf_file_system import bpf_file_system
from tests.kernel.bypass_hosts import engine
from tests.kernel.gateway_wires import Three, three_hosts
from tests.traces import leaves_nothing as leaves_nothing

from ackward.kernel import background
from ackward.kernel.namespaces import Namespace, temporary
from ackward.lab.topology import TwoHosts, two_hosts
from ackward.remedies import receipts
from ackward.remedies.bypass.engine import Engine
from ackward.remedies.detour import follower
from ackward.remedies.receipts import Receipts


def pytest_collection_modifyitems(config, items):
    if os.geteuid() == 0:
        return
    if os.environ.get("CI"):
        raise pytest.UsageError("CI must run the kernel tests as root")
    for item in items:
        if "tests/kernel" in item.path.as_posix():
            item.add_marker(pytest.mark.skip(reason="probe failed: not root"))


@pytest.fixture
def hosts() -> TwoHosts:
    """Two hosts on one wire."""
    with two_hosts() as made:
        yield made


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    """A host with nothing but its loopback."""
    with temporary("host") as made:
        yield made


@pytest.fixture(scope="module")
def three() -> Iterator[Three]:
    """A client's host, a gateway's and a server's in a row."""
    with three_hosts() as made:
        yield made


@pytest.fixture(scope="module")
def pins() -> Iterator[None]:
    """The BPF file system is there: what is pinned has a place."""
    with bpf_file_system():
        yield


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Receipts]:
    """Receipts of one test; followers that it lost end with it."""
    made = Receipts(tmp_path / "ackward")
    yield made
    for lost in follower.running(made.directory):
        background.stop(lost)


@pytest.fixture
def own_store(store: Receipts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process applies without naming a store has its receipts there too: commands do."""
    monkeypatch.setattr(receipts, "DIRECTORY", store.directory)


@pytest.fixture
def joining(host: Namespace) -> Iterator[Engine]:
    """The bypass of that host: all that is connected there is joined."""
    with engine(host) as made:
        yield made
