"""The real kernel, or a skip that names what is missing. On CI nothing may be missing."""

from __future__ import annotations

import os

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
    before = {namespace.inode for namespace in in_sight()}
    yield
    left = [
        namespace.name
        for namespace in in_sight()
        if namespace.inode not in before and "ackward" in namespace.name
    ]
    assert not left
