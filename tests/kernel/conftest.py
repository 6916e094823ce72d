"""The real kernel, or a skip that names what is missing. On CI nothing may be missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ackward.kernel.namespaces import in_sight
from ackward.lab.topology import TwoHosts, two_hosts


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


@pytest.fixture(autouse=True, scope="session")
def _leave_no_namespace():
    """Each namespace of ours carries the PID of its maker: none may outlive it (others may run at the same time)."""
    yield
    names = [namespace.name for namespace in in_sight() if namespace.name.startswith("ackward-")]
    makers = {name: int(name.rsplit("-", 2)[1]) for name in names}
    left = [name for name, pid in makers.items() if pid == os.getpid() or not Path(f"/proc/{pid}").exists()]
    assert not left
