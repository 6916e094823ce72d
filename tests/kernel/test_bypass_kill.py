"""Whoever is killed, and whenever it is undone: connections go on or end as TCP would end them, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.kernel.bpf_file_system import bpf_file_system
from tests.kernel.bypass_hosts import (
    HANGS,
    both_ways,
    close,
    connect,
    in_kernel,
    listener,
    map_ids,
    pair,
    readable,
)
from tests.kernel.quickack_hosts import eventually

from ackward import remedies
from ackward.cli import main as cli
from ackward.kernel.namespaces import Namespace, command_inside, temporary
from ackward.loop import fixing
from ackward.model.bypass import Capabilities, Finding, Hazard, Outcome
from ackward.model.plan import Plan, Receipt, Refusal, State
from ackward.model.scopes import BypassScope
from ackward.remedies import receipts
from ackward.remedies.bypass import capabilities
from ackward.remedies.bypass.pinned import Pinned, all_pinned
from ackward.remedies.clearance import undo_all
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import identify

EVERYTHING = BypassScope(ports=(1, 65535), joins="all", accepted=tuple(Hazard))


@pytest.fixture(autouse=True, scope="module")
def _pins() -> Iterator[None]:
    with bpf_file_system():
        yield


@pytest.fixture
def host() -> Iterator[Namespace]:
    with temporary("bypass-kill") as made:
        yield made
    assert eventually(lambda: not in_kernel(_made))
    _made.clear()


@pytest.fixture
def store(tmp_path: Path) -> Receipts:
    return Receipts(tmp_path / "ackward")


#: Maps of the engines that a test made.
_made: set[int] = set()


def applied(host: Namespace, store: Receipts, scope: BypassScope = EVERYTHING) -> Receipt:
    remedy = remedies.load("bypass")
    plan = remedy.plan(host, scope)
    assert isinstance(plan, Plan), plan
    receipt = remedy.apply(plan, store)
    assert receipt is not None
    with pinned(receipt).engine() as engine:
        _made.update(map_ids(engine))
    return receipt


def pinned(receipt: Receipt) -> Pinned:
    return Pinned(receipt.id, receipt.namespace.cookie or 0)


def test_status_says_who_joined_and_what_waits(host: Namespace, store: Receipts) -> None:
    receipt = applied(host, store)
    remedy = remedies.load("bypass")
    ends = pair(host)
    ends[0].sendall(b"seven b")
    status = remedy.status(receipt, store)
    assert status.state is State.IN_FORCE
    (look,) = status.details
    assert "1 connection joined now, 1 ever" in look.words
    assert "1 message and 7 bytes redirected" in look.words
    assert "7 bytes queued for 1 reader, 7 for one at most" in look.words
    assert remedy.undo(receipt, store).complete
    close(*ends)


def test_undo_loses_nothing_that_waits(host: Namespace, store: Receipts) -> None:
    receipt = applied(host, store)
    client, server = pair(host)
    client.sendall(b"waits")
    outcome = remedies.load("bypass").undo(receipt, store)
    assert outcome.complete
    assert "draining: 5 bytes stay queued for 1 reader" in outcome.words
    assert not pinned(receipt).is_there
    client.sendall(b", goes on")
    assert eventually(lambda: readable(server) == 14)
    assert server.recv(100) == b"waits, goes on"
    server.sendall(b"and back")
    assert client.recv(100) == b"and back"
    after = pair(host)
    close(client, server, *after)


def test_undo_while_bytes_flow(host: Namespace, store: Receipts) -> None:
    for seed in range(3):
        receipt = applied(host, store)
        ends = pair(host)
        outcomes: list[bytes] = []
        talking = threading.Thread(target=lambda: outcomes.extend(both_ways(ends, 4_000_000, seed)))  # noqa: B023
        talking.start()
        with pinned(receipt).engine() as engine:
            assert eventually(lambda: engine.counters().redirected > 20)
        assert remedies.load("bypass").undo(receipt, store).complete
        talking.join(3 * HANGS)
        written, read, back, read_back = outcomes
        assert (written, back) == (read, read_back)
        close(*ends)


def test_the_one_who_applied_is_killed(host: Namespace, store: Receipts) -> None:
    """Nothing of ours runs: there is nobody to miss."""
    program = (
        "import os, signal, sys; from pathlib import Path; from ackward import remedies;"
        "from ackward.kernel.namespaces import resolve; from ackward.model.scopes import BypassScope;"
        "from ackward.remedies.receipts import Receipts; remedy = remedies.load('bypass');"
        "plan = remedy.plan(resolve(sys.argv[1]), BypassScope.model_validate_json(sys.argv[2]));"
        "remedy.apply(plan, Receipts(Path(sys.argv[3]))); os.kill(os.getpid(), signal.SIGKILL)"
    )
    arguments = [sys.executable, "-c", program, host.name, EVERYTHING.model_dump_json(), str(store.directory)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (receipt,) = store.load().receipts
    ends = pair(host)
    ends[0].sendall(b"joined")
    assert ends[1].recv(100) == b"joined"
    with pinned(receipt).engine() as engine:
        assert engine.counters().redirected == 1
    assert undo_all(store, [host]).complete
    assert not pinned(receipt).is_there
    close(*ends)


def test_what_an_ended_connection_left_unread_outlives_the_undo(host: Namespace, store: Receipts) -> None:
    """Both ends have shut down, so it is none of the open ones that an undo tells of; its reader has not read."""
    receipt = applied(host, store)
    client, server = pair(host)
    server.sendall(b"y" * 300_000)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.close()
    with pinned(receipt).engine() as engine:
        assert eventually(lambda: engine.survey().ends == 0)
    assert "no joined connection was open any more" in remedies.load("bypass").undo(receipt, store).words
    got = 0
    while piece := client.recv(8192):
        got += len(piece)
    assert got == 300_000
    client.close()


#: Undoes the one receipt of a directory, and is killed right after its first call of a function.
UNDO = """
import os, signal, sys
from pathlib import Path
from ackward import remedies
from ackward.remedies.bypass.engine import Engine
from ackward.remedies.bypass.pinned import Pinned
from ackward.remedies.receipts import Receipts
owner, name = sys.argv[2].split(".")
owner = {"Engine": Engine, "Pinned": Pinned, "Path": Path}[owner]
original = getattr(owner, name)
def last(*arguments, **options):
    original(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, last)
store = Receipts(Path(sys.argv[1]))
(receipt,) = store.load().receipts
remedies.load("bypass").undo(receipt, store)
"""


@pytest.mark.parametrize(
    "after", ["Engine.switch", "Engine.survey", "Engine.detach", "Path.unlink", "Pinned.remove_directory"]
)
def test_an_undo_is_killed_while_bytes_flow(host: Namespace, store: Receipts, after: str) -> None:
    """At each of its steps; the next undo ends what it began."""
    receipt = applied(host, store)
    ends = pair(host)
    outcomes: list[bytes] = []
    done = threading.Event()
    talking = threading.Thread(target=lambda: outcomes.extend(both_ways(ends, done, 1)))
    talking.start()
    try:
        with pinned(receipt).engine() as engine:
            assert eventually(lambda: engine.counters().redirected > 20)
        undoing = [sys.executable, "-c", UNDO, str(store.directory), after]
        killed = subprocess.run(undoing, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert undo_all(store, [host]).complete
        assert not pinned(receipt).is_there
        assert store.load().receipts == ()
    finally:
        done.set()
        talking.join(3 * HANGS)
    written, read, back, read_back = outcomes
    assert (written, back) == (read, read_back)
    close(*ends)


CLIENT = """
import os, socket, sys
end = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
end.sendall(b"x" * int(sys.argv[2]))
print("written", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("unread", [0, 1000])
def test_a_program_at_one_end_is_killed(host: Namespace, store: Receipts, unread: int) -> None:
    """What it wrote is read, then the end; with unread bytes on its own side too."""
    receipt = applied(host, store)
    with listener(host) as listening:
        command = [sys.executable, "-c", CLIENT, str(listening.getsockname()[1]), "70000"]
        with subprocess.Popen(
            command_inside(host, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client:
            server, _ = listening.accept()
            server.settimeout(HANGS)
            server.sendall(b"y" * unread)
            assert client.stdout is not None
            assert client.stdout.readline() == b"written\n"
            client.kill()
        got = 0
        while piece := server.recv(8192):
            got += len(piece)
        assert got == 70_000
        server.close()
    with pinned(receipt).engine() as engine:
        assert eventually(lambda: engine.survey().ends == 0)
    assert undo_all(store, [host]).complete


def test_a_reader_is_killed_while_its_writer_writes(host: Namespace, store: Receipts) -> None:
    receipt = applied(host, store)
    with listener(host) as listening:
        command = [sys.executable, "-c", CLIENT, str(listening.getsockname()[1]), "1"]
        with subprocess.Popen(
            command_inside(host, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as reader:
            writer, _ = listening.accept()
            writer.settimeout(HANGS)
            assert writer.recv(10) == b"x"
            ended: list[type[BaseException]] = []

            def write() -> None:
                try:
                    while True:
                        writer.sendall(b"z" * 10_000)
                except OSError as error:
                    ended.append(type(error))

            writing = threading.Thread(target=write)
            writing.start()
            with pinned(receipt).engine() as engine:
                assert eventually(lambda: engine.survey().waiting_bytes > 100_000)
            reader.kill()
        writing.join(HANGS)
        assert ended[0] in (ConnectionResetError, BrokenPipeError)  # as over TCP
        writer.close()
    assert undo_all(store, [host]).complete


def test_a_listener_closes_before_it_accepted(host: Namespace, store: Receipts) -> None:
    receipt = applied(host, store)
    with listener(host) as listening:
        client = connect(host, *listening.getsockname())
        client.sendall(b"nobody reads this")
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    client.close()
    with pinned(receipt).engine() as engine:
        assert eventually(lambda: engine.survey().ends == 0)
    assert undo_all(store, [host]).complete


def test_many_connections_outlive_the_undo(host: Namespace, store: Receipts) -> None:
    """The last of them takes the programs and maps with it (see the fixture)."""
    receipt = applied(host, store)
    with ExitStack() as stack:
        ends = [pair(host) for _ in range(50)]
        for number, (client, server) in enumerate(ends):
            stack.callback(close, client, server)
            client.sendall(b"%d" % number)
        assert remedies.load("bypass").undo(receipt, store).complete
        assert all_pinned() == [one for one in all_pinned() if one.netns != identify(host).cookie]
        assert in_kernel(_made) == _made
        for number, (client, server) in enumerate(ends):
            client.sendall(b" more")
            got = server.recv(100)
            while len(got) < len(b"%d more" % number):
                got += server.recv(100)
            assert got == b"%d more" % number


class TestPlan:
    """What the self-test found decides."""

    @pytest.fixture(autouse=True)
    def own_store(self, store: Receipts, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(receipts, "DIRECTORY", store.directory)

    def found(self, **outcomes: Outcome) -> Capabilities:
        findings = tuple(
            Finding(
                hazard=hazard,
                outcome=outcomes.get(hazard.name.lower(), Outcome.SAME),
                measured=f"{hazard.value} was seen",
            )
            for hazard in Hazard
        )
        return Capabilities(
            kernel=os.uname().release,
            boot_id=receipts.boot_id(),
            engine=capabilities.build(),
            tried="2026-01-01T00:00:00+00:00",
            findings=findings,
        )

    def plan(self, host: Namespace, **scope: object) -> Plan | Refusal:
        scope = {"ports": (80, 80), **scope}
        return remedies.load("bypass").plan(host, BypassScope.model_validate(scope))

    def test_untried_is_refused(self, host: Namespace) -> None:
        refusal = self.plan(host)
        assert isinstance(refusal, Refusal)
        assert "`ackward doctor --self-test`" in refusal.next_step

    def test_a_difference_is_refused_unless_it_is_accepted(self, host: Namespace) -> None:
        capabilities.store(self.found(oob=Outcome.DIFFERS, splice=Outcome.DIFFERS, peek=Outcome.MITIGATED))
        refusal = self.plan(host, accepted=("splice",))
        assert isinstance(refusal, Refusal)
        assert "in oob" in refusal.reason
        assert "splice" not in refusal.reason
        assert "`--accept oob`" in refusal.next_step
        assert isinstance(self.plan(host, accepted=("splice", "oob")), Plan)

    def test_what_only_blocking_readers_meet_needs_no_word_when_none_joins(self, host: Namespace) -> None:
        capabilities.store(self.found(waitall=Outcome.DIFFERS, wakeup=Outcome.DIFFERS))
        plan = self.plan(host)
        assert isinstance(plan, Plan)
        assert any("blocks in recv() later may get EAGAIN" in note for note in plan.notes)
        refusal = self.plan(host, joins="all")
        assert isinstance(refusal, Refusal)
        assert "`--accept waitall,wakeup`" in refusal.next_step

    def test_findings_of_another_boot_or_program_are_none(self, host: Namespace) -> None:
        for update in ({"boot_id": "earlier"}, {"engine": "another"}, {"kernel": "5.10"}):
            capabilities.store(self.found().model_copy(update=update))
            assert isinstance(self.plan(host), Refusal)
        capabilities.path().write_bytes(b"{")
        assert capabilities.load() is None
        assert Receipts().load().damaged == ()

    def test_without_a_scope_nothing_joins(self, host: Namespace) -> None:
        refusal = self.plan(host, ports=None)
        assert isinstance(refusal, Refusal)
        assert "no scope is named" in refusal.reason

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--port", "80", "--accept", "everything"], "--accept everything is no hazard"),
            (["--port", "0"], "is no TCP port"),
            (["--port", "80", "--exclude", "10.0.0.1/8"], "write 10.0.0.0/8"),
            (["--port", "80", "--exclude", "90-80"], "turned round"),
            (["--port", "80", "--from", "ten"], "is not a network"),
            (["--port", "80", "--exclude", ",".join(map(str, range(1, 10)))], "more than the 8"),
        ],
    )
    def test_bad_requests_exit_2(
        self, host: Namespace, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        capabilities.store(self.found())
        assert cli.run(["fix", "bypass", "--netns", host.name, *arguments]) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.out == ""

    def test_a_command_with_everything(
        self, host: Namespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fixing, "in_sight", lambda: [host])
        capabilities.store(self.found())
        options = [
            "--port",
            "80-90",
            "--to",
            "10.0.0.0/8",
            "--from",
            "10.1.0.0/16",
            "--exclude",
            "85,10.2.0.0/16",
        ]
        assert cli.run(["fix", "bypass", "--netns", host.name, *options, "--no-learn", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["plan"]["request"] == ["bypass", *options, "--no-learn"]
        assert shown["receipt"]["scope"]["excluded_ports"] == [[85, 85]]
        assert cli.run(["status"]) == 0
        assert "0 connections joined now" in capsys.readouterr().out
        assert cli.run(["undo", "--all"]) == 0
