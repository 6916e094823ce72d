"""Two hosts for the tests of pinning, and receipts of which nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.quickack_hosts import ip, routing
from tests.polling import eventually

import ackward
from ackward.lab.topology import TwoHosts, two_hosts
from ackward.loop import pinning
from ackward.remedies import receipts
from ackward.remedies.detour import follower
from ackward.remedies.pin import keeper


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with two_hosts() as made:
        for host in (
            made.client,
            made.server,
        ):  # a link-local address brings routes when its detection is over
            assert eventually(lambda host=host: "tentative" not in ip(host, "-6", "address"))
        yield made


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: TwoHosts) -> Iterator[receipts.Receipts]:
    """Receipts of one test; nothing of it is left, on the hosts or in this process."""
    before = routing(hosts.server)
    monkeypatch.setattr(receipts, "DIRECTORY", tmp_path)
    monkeypatch.setattr(pinning, "_MARKINGS", {})
    made = receipts.Receipts()
    yield made
    for receipt in made.load().receipts:
        assert ackward.undo(receipt.id)[0].complete
    assert routing(hosts.server) == before
    assert eventually(lambda: not [*keeper.running(tmp_path), *follower.running(tmp_path)])
