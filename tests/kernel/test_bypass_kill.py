"""Whoever is killed, and whenever it is undone: connections go on or end as TCP would end them, and nothing is left."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
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
from tests.polling import eventually
from tests.steady import FINAL

from ackward import remedies
from ackward.kernel.namespaces import Namespace, command_inside, temporary
from ackward.model.bypass import Hazard
from ackward.model.plan import Plan, Receipt, State
from ackward.model.scopes import BypassScope
from ackward.remedies.bypass.pinned import PinnedEngine, all_pinned
from ackward.remedies.clearance import undo_all
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import identify

pytestmark = [pytest.mark.usefixtures("pins"), FINAL]

EVERYTHING = BypassScope(ports=(1, 65535), joins="all", accepted=tuple(Hazard))


@pytest.fixture
def host() -> Iterator[Namespace]:
    with temporary("bypass-kill") as made:
        yield made
    assert eventually(lambda: not in_kernel(_made))
    _made.clear()


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


def pinned(receipt: Receipt) -> PinnedEngine:
    return PinnedEngine(receipt.id, receipt.namespace.cookie or 0)


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
from ackward.remedies.bypass.pinned import PinnedEngine
from ackward.remedies.receipts import Receipts
owner, name = sys.argv[2].split(".")
owner = {"Engine": Engine, "PinnedEngine": PinnedEngine, "Path": Path}[owner]
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
    "after",
    ["Engine.switch", "Engine.survey", "Engine.detach", "Path.unlink", "PinnedEngine.remove_directory"],
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
