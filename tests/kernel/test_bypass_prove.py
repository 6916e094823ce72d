"""A bypass is kept only if programs get their answers sooner: measured at their calls, whatever carries the bytes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.kernel.bypass_hosts import Pair, connect, listener, pair
from tests.kernel.bypass_load import PORT, Load, compiled, serving
from tests.kernel.quickack_hosts import wire
from tests.polling import eventually

from ackward.capture.calls import FAILED, CallCapture, Calls
from ackward.cli import main as cli
from ackward.errors import ProgramRejected, Refused, VerificationFailed
from ackward.kernel.libbpf import Object
from ackward.kernel.namespaces import Namespace, command_inside, temporary
from ackward.kernel.sock_diag import TcpState, dump
from ackward.loop import bypassing, fixing, proving
from ackward.loop.calls_reach import by_service, reached
from ackward.model.bypass import Hazard
from ackward.model.plan import Plan
from ackward.model.scopes import BypassScope
from ackward.model.verdict import GuardState, Result
from ackward.remedies.bypass.pinned import PinnedEngine, all_pinned
from ackward.remedies.clearance import undo_all
from ackward.remedies.lasting import lease
from ackward.remedies.receipts import Receipts

pytestmark = pytest.mark.usefixtures("pins", "own_store")

ANYTHING = ",".join(Hazard)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("load"))


@pytest.fixture
def host() -> Iterator[Namespace]:
    with temporary("bypass-prove") as made:
        yield made


@contextmanager
def clients(
    host: Namespace, program: Path, mode: str, seconds: float, *how: str, size: int = 64
) -> Iterator[None]:
    """One client after another, each with a connection that lasts so long.

    Both ends on one processor: a round then takes what it takes, and not what the scheduler makes of it.
    """
    ended = threading.Event()

    def run(load: Load) -> None:
        while not ended.is_set():
            load.client(host, mode, "127.0.0.1", size, seconds, *how)

    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        with serving(host, program, 2) as load:
            thread = threading.Thread(target=run, args=(load,))
            thread.start()
            os.sched_setaffinity(0, allowed)
            try:
                yield
            finally:
                ended.set()
                thread.join()
    finally:
        os.sched_setaffinity(0, allowed)


def planned(host: Namespace) -> Plan:
    return bypassing.plan_bypass(netns=host.name, port=PORT, accept=[ANYTHING])


def left(store: Receipts) -> list[object]:
    """What of a proof is still there."""
    return [*store.load().receipts, *lease.of_directory(store.directory)]


def test_it_stays_when_requests_are_answered_sooner(host: Namespace, program: Path, store: Receipts) -> None:
    said: list[str] = []
    with clients(host, program, "ask", 0.1):
        proof = proving.prove(planned(host), 1.5, say=said.append)
    assert proof.verdict.result is Result.IMPROVED, proof.verdict.words
    assert "connections joined; of their messages" in proof.verdict.words
    assert any(words.startswith("waiting until a new connection joins") for words in said)
    states = {guard.name: guard.state for guard in proof.verdict.guards}
    assert list(states) == ["failures", "throughput", "cpu", "latency"]
    assert GuardState.HARMED not in states.values()
    assert states["failures"] is GuardState.FINE
    for phase in proof.phases:
        assert phase.report.capture.source == "calls"
        assert phase.report.exchanges == phase.measure.rounds > 1000
    assert proof.receipt is not None
    assert proof.receipt.lease is None
    assert fixing.undo(proof.receipt.id)[0].complete
    assert left(store) == []


def test_a_service_that_streams_keeps_tcp(host: Namespace, program: Path, store: Receipts) -> None:
    """Corked: how many writes TCP gathers in a segment is then not the scheduler's."""
    streaming = clients(host, program, "stream", 0.05, "cork", size=1024)
    with streaming, pytest.raises(VerificationFailed) as failed:
        proving.prove(planned(host), 1.0)
    assert "of services that stream" in failed.value.missing
    assert "leave this service on TCP" in failed.value.next_step
    assert left(store) == []


def test_without_new_connections_it_says_what_would_help(
    host: Namespace, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ["fix", "bypass", "--netns", host.name, "--port", str(PORT), "--accept", ANYTHING]
    with clients(host, program, "ask", 1.5):
        assert eventually(lambda: dump(host, [TcpState.ESTABLISHED]) != [])
        assert cli.run([*request, "--prove", "300ms", "--json"]) == 5
    error = json.loads(capsys.readouterr().out)
    assert error["missing"] == "no new connection in scope was made within 0.3 s"
    assert "restart the client" in error["next_step"]
    assert cli.run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["remedies"] == []


def test_without_traffic_nothing_is_applied(host: Namespace) -> None:
    said: list[str] = []
    with pytest.raises(VerificationFailed, match="no request was answered"):
        proving.prove(planned(host), 0.1, say=said.append)
    assert said == ["measuring 0.1 s before"]


def test_somebody_takes_it_back_meanwhile(host: Namespace, program: Path) -> None:
    def undo(what: str) -> None:
        if what.endswith("after"):
            [status] = fixing.status()
            assert fixing.undo(status.receipt.id)[0].complete

    with (
        clients(host, program, "ask", 0.1),
        pytest.raises(Refused, match="was taken back while it was measured"),
    ):
        proving.prove(planned(host), 0.3, say=undo)


def test_it_goes_when_another_service_suffers(host: Namespace, program: Path, store: Receipts) -> None:
    """However much sooner its own requests are answered."""
    delay = 0.002
    ended = threading.Event()
    neighbour = pair(host)
    _, port = neighbour[1].getsockname()

    def ask() -> None:
        while not ended.is_set():
            neighbour[0].sendall(b"question")
            neighbour[0].recv(100)

    def answer() -> None:
        while neighbour[1].recv(100):
            time.sleep(delay)
            neighbour[1].sendall(b"answer")

    def harm(what: str) -> None:
        nonlocal delay
        if what.startswith("applied"):
            delay = 0.01

    threads = [threading.Thread(target=body) for body in (ask, answer)]
    for thread in threads:
        thread.start()
    try:
        with clients(host, program, "ask", 0.1):
            proof = proving.prove(planned(host), 1.3, say=harm)
    finally:
        ended.set()
        threads[0].join()
        neighbour[0].close()
        threads[1].join()
        neighbour[1].close()
    assert proof.verdict.result is Result.WORSE
    assert proof.verdict.ratio < 0.9
    assert f"But it harms: 1 other service, worst: 127.0.0.1:{port}" in proof.verdict.words
    assert proof.receipt is None
    assert left(store) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from ackward.loop import bypassing, proving
from ackward.remedies import receipts

def say(what):
    if what.startswith("measuring") and what.endswith("after"):
        os.kill(os.getpid(), signal.SIGKILL)

receipts.DIRECTORY = Path(sys.argv[1])
plan = bypassing.plan_bypass(netns=sys.argv[2], port=int(sys.argv[3]), accept=[sys.argv[4]])
proving.prove(plan, 0.5, say=say)
"""


def test_killed_in_the_middle_an_undo_takes_it_away(host: Namespace, program: Path, store: Receipts) -> None:
    arguments = [str(store.directory), host.name, str(PORT), ANYTHING]
    with clients(host, program, "ask", 0.1):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        (receipt,) = store.load().receipts
        assert receipt.lease is not None  # it would go by itself
        pinned = PinnedEngine(receipt.id, receipt.namespace.cookie or 0)
        with pinned.engine() as engine:
            assert engine.counters().joined
        assert undo_all(store, [host]).complete
    assert pinned not in all_pinned()
    assert left(store) == []


class TestCalls:
    """The measure itself."""

    def rounds(self, ends: Pair, count: int) -> None:
        client, server = ends
        for _ in range(count):
            client.sendall(b"question")
            assert server.recv(100) == b"question"
            server.sendall(b"answer")
            assert client.recv(100) == b"answer"

    def close(self, *ends: socket.socket) -> None:
        for end in ends:
            end.close()

    def of(self, seen: Calls, host: Namespace) -> list[tuple[int, int, int]]:
        """The connections of a host: the ports of client and server, and how many exchanges were timed."""
        found = []
        for client, server in zip(seen.clients, seen.servers, strict=True):
            ends = seen.ends[[client, server]]
            assert ends[0]["local_port"] == ends[1]["remote_port"]
            if host.inode in ends["netns"]:
                timed = seen.calls[(seen.calls["socket"] == client) & (seen.calls["elapsed_ns"] > 0)]
                found.append((int(ends[0]["local_port"]), int(ends[0]["remote_port"]), len(timed)))
        return found

    def test_clients_are_told_from_servers_open_or_new(self, host: Namespace) -> None:
        before = pair(host)
        self.rounds(before, 3)
        with CallCapture() as capture:
            conversations = [before, pair(host), pair(host, "::1"), pair(host, "::", "127.0.0.1")]
            for ends in conversations:
                self.rounds(ends, 10)
            # The server's first call is a recv() after the FIN.
            late = pair(host)
            late[0].sendall(b"question")
            late[0].shutdown(socket.SHUT_WR)
            assert late[1].recv(100) == b"question"
            late[1].sendall(b"answer")
            assert late[0].recv(100) == b"answer"
            seen = capture.finish()
        expected = [(*self.ports(ends), 10) for ends in conversations] + [(*self.ports(late), 1)]
        assert sorted(self.of(seen, host)) == sorted(expected)
        assert seen.lost == 0
        self.close(*late, *(end for ends in conversations for end in ends))

    def ports(self, ends: Pair) -> tuple[int, int]:
        return ends[0].getsockname()[1], ends[0].getpeername()[1]

    def test_what_is_measured_is_the_wait(self, host: Namespace) -> None:
        ends = client, server = pair(host)
        with CallCapture() as capture:
            self.rounds(ends, 1)
            threading.Timer(0.05, server.sendall, [b"late"]).start()
            client.sendall(b"question")
            assert client.recv(100) == b"late"
            # Nothing was asked: a greeting, a look at it, and an end that nobody awaited.
            server.sendall(b"more")
            assert client.recv(100, socket.MSG_PEEK) == b"more"
            assert client.recv(100) == b"more"
            seen = capture.finish()
        [number] = [
            client
            for client in seen.clients
            if seen.ends[client]["netns"] == host.inode  # others may be at work on this machine
        ]
        elapsed = seen.calls["elapsed_ns"][seen.calls["socket"] == number].tolist()
        assert len(elapsed) == 2
        assert elapsed[0] < 50e6 <= elapsed[1] < 1e9
        self.close(*ends)

    def test_calls_that_fail_are_told(self, host: Namespace) -> None:
        client, server = pair(host)
        with CallCapture() as capture:
            self.rounds((client, server), 1)
            server.sendall(b"unread")
            client.close()
            assert eventually(lambda: self.fails(server))
            seen = capture.finish()
        ours = np.flatnonzero(seen.ends["netns"] == host.inode)
        failed = seen.calls[(seen.calls["elapsed_ns"] == FAILED) & np.isin(seen.calls["socket"], ours)]
        assert len(failed) >= 1
        server.close()

    def test_redirected_connections_are_known_by_either_port(self, host: Namespace) -> None:
        with listener(host) as listening, CallCapture() as capture:
            port = listening.getsockname()[1]
            rule = ["-p", "tcp", "--dport", "80", "-j", "REDIRECT", "--to-ports", str(port)]
            command = command_inside(host, ["iptables", "-t", "nat", "-A", "OUTPUT", *rule])
            subprocess.run(command, check=True)
            ends = connect(host, "127.0.0.1", 80), listening.accept()[0]
            self.rounds(ends, 2)
            seen = capture.finish()
        for known in (80, port):
            mine = reached(seen, BypassScope(ports=(known, known)), host.inode)
            assert [int(seen.ends[client]["remote_port"]) for client in seen.clients[mine]] == [80]
        self.close(*ends)

    def fails(self, end: socket.socket) -> bool:
        try:
            end.sendall(b"x")
        except OSError:
            return True
        return False

    def test_the_scope_is_that_of_the_engine(self, host: Namespace) -> None:
        """Of connections within a host and between two, and by both ends together."""
        with temporary("bypass-prove-peer") as peer:
            wire(host, peer, "prove0", 71)
            with listener(host, "198.19.71.1") as listening, CallCapture() as capture:
                across = connect(peer, *listening.getsockname()[:2]), listening.accept()[0]
                within = pair(host)
                self.rounds(across, 5)
                self.rounds(within, 5)
                seen = capture.finish()
        port, other = (self.ports(ends)[1] for ends in (across, within))
        for scope, expected in (
            ({}, {port, other}),
            ({"ports": (port, port)}, {port}),
            ({"to": "198.19.71.1/32"}, {port}),
            ({"source": "198.19.71.2/32"}, {port}),
            ({"to": "198.19.71.2/32"}, set()),
            ({"excluded_ports": ((port, port),)}, {other}),
            ({"excluded_networks": ("127.0.0.0/8",)}, {port}),
            ({"ports": (port, port), "source": "127.0.0.0/8"}, set()),
        ):
            mine = reached(seen, BypassScope.model_validate(scope), host.inode)
            assert {int(seen.ends[client]["remote_port"]) for client in seen.clients[mine]} == expected, scope
        mine = reached(seen, BypassScope(), peer.inode)
        assert {int(seen.ends[client]["remote_port"]) for client in seen.clients[mine]} == {port}
        asked = np.isin(seen.calls["socket"], seen.clients) & (seen.calls["elapsed_ns"] > 0)
        asking = seen.calls["socket"][asked].astype(np.int64)
        services = by_service(seen, asking, seen.calls["elapsed_ns"][asked])
        assert len(services[f"198.19.71.1:{port}"]) == len(services[f"127.0.0.1:{other}"]) == 5
        self.close(*across, *within)


def test_a_kernel_without_typed_tracepoints_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that lets nobody attach to functions: the tracepoints are there, and are refused."""

    def load(_: Object) -> None:
        raise ProgramRejected(
            "calls.bpf.o could not be loaded: Operation not permitted",
            consequence="nothing can be measured",
            next_step="run `ackward doctor`",
            log="the log",
        )

    monkeypatch.setattr(Object, "load", load)
    with pytest.raises(ProgramRejected, match="typed tracepoints") as refused, CallCapture():
        pass
    assert "without --prove" in refused.value.next_step
    assert refused.value.log == "the log"
