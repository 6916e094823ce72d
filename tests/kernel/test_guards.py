"""A remedy that helps its own traffic and harms another is undone, on the real kernel."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.kernel.quickack_hosts import Conversation, ip

from ackward.kernel.counters import CounterFiles
from ackward.kernel.namespaces import call_inside
from ackward.lab.topology import TwoHosts
from ackward.loop import fixing, proving
from ackward.model.verdict import Guard, GuardState, Result
from ackward.remedies import receipts
from ackward.remedies.lasting import lease
from ackward.remedies.receipts import Receipts


class Neighbour:
    """Another service of the same host, whose answers take as long as its ``delay`` says, in seconds."""

    def __init__(self, hosts: TwoHosts) -> None:
        self.delay = 0.002
        address = (hosts.server_address(4), 7400)
        self._listener = call_inside(hosts.server, socket.create_server, address)
        self._client = call_inside(hosts.client, socket.create_connection, address)
        self._threads = [threading.Thread(target=body) for body in (self._answer, self._ask)]

    def _answer(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            while connection.recv(100):
                time.sleep(self.delay)
                connection.sendall(b"answer")

    def _ask(self) -> None:
        with self._client:
            while not self.ended:
                self._client.sendall(b"question")
                self._client.recv(100)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.ended = False
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self.ended = True
            for thread in self._threads:
                thread.join()
            self._listener.close()


@contextmanager
def stalling(hosts: TwoHosts) -> Iterator[None]:
    """A service on port 7300 whose rounds stall, asked all the while."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            conversation.rounds(1)
            time.sleep(0.005)

    with Conversation(hosts.client, hosts.server, hosts.server_address(4), 7300) as conversation:
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("harm", [True, False])
def test_a_remedy_is_kept_only_if_no_other_service_got_slower(
    hosts: TwoHosts, harm: bool, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "DIRECTORY", tmp_path / "ackward")
    rules = ip(hosts.server, "rule", "show")
    neighbour = Neighbour(hosts)

    def harmful(what: str) -> None:
        if harm and what.startswith("applied"):
            neighbour.delay = 0.012

    with neighbour.running(), stalling(hosts):
        plan = fixing.plan_quickack(netns=hosts.server.name, port=7300)
        proof = proving.prove(plan, 2.5, say=harmful)
    guards: dict[str, Guard] = {guard.name: guard for guard in proof.verdict.guards}
    assert list(guards) == ["acks", "retransmissions", "cpu", "latency"]
    assert proof.verdict.ratio < 0.1
    assert all(phase.load and phase.load.data_sent > 10 for phase in proof.phases)
    if harm:
        assert proof.verdict.result is Result.WORSE
        assert guards["latency"].state is GuardState.HARMED
        assert "But it harms: 1 other service, worst: 198.18.0.2:7400" in proof.verdict.words
        assert proof.receipt is None
        assert ip(hosts.server, "rule", "show") == rules
    else:
        assert proof.verdict.result is Result.IMPROVED
        assert guards["latency"].state is GuardState.FINE
        # What the proof was leased for has been dropped: it stays until it is undone.
        assert proof.receipt is not None
        assert proof.receipt.lease is None
        assert fixing.undo(proof.receipt.id)[0].complete
    assert not lease.of_directory(Receipts().directory)


def test_counters_are_those_of_the_namespace_whoever_reads_them(hosts: TwoHosts) -> None:
    with CounterFiles(hosts.server) as there, CounterFiles(hosts.client) as here:
        before = there.read(), here.read()
        with Conversation(hosts.client, hosts.server, hosts.server_address(4), 7300) as conversation:
            conversation.rounds(5)
        grown = [
            (new.data_sent - old.data_sent, new.received - old.received, new.acks - old.acks)
            for new, old in zip((there.read(), here.read()), before, strict=True)
        ]
    (server_data, server_received, server_acks), (client_data, client_received, _) = grown
    # Five answers and a FIN; five requests of two writes and a FIN: a held write may leave with its FIN's ACK only.
    assert 5 <= server_data <= 6
    assert 10 <= client_data <= 11
    assert server_received >= client_data
    assert client_received == server_data + server_acks
