"""The supervisor and its workers without a namespace: answers that come late, many descriptors, what is told at times."""

from __future__ import annotations

import fcntl
import os
import pickle
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from ackward.gateway import sockets
from ackward.gateway import worker as worker_module
from ackward.gateway.counters import Counters
from ackward.gateway.processes import Supervisor, _Process
from ackward.gateway.settings import FixedListener, Settings, Steps
from ackward.gateway.worker import Identity, Sockets, Worker


class Recounting:
    """Hooks that are only asked for what they counted."""

    def __init__(self) -> None:
        self.recounts = 0

    def recount(self) -> None:
        self.recounts += 1


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ends
    for end in ends:
        end.close()


def test_an_answer_that_comes_late_is_not_taken_for_the_next_one(pair):
    ours, theirs = pair
    supervisor, process = Supervisor(Settings(), Recounting()), _Process(0, 0, -1, ours)
    ours.settimeout(0.01)
    assert supervisor._ask(process, {"do": "status"}) is None
    number, _ = pickle.loads(theirs.recv(1 << 16))
    theirs.send(pickle.dumps((number, {"late": True})))
    ours.settimeout(10)

    def answer() -> None:
        again, wanted = pickle.loads(theirs.recv(1 << 16))
        theirs.send(pickle.dumps((again, {"to": wanted["do"]})))

    thread = threading.Thread(target=answer)
    thread.start()
    assert supervisor._ask(process, {"do": "keys"}) == {"to": "keys"}
    thread.join(10)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_a_worker_that_ended_is_seen_where_descriptors_are_above_1023(pair):
    pid = os.posix_spawn("/bin/true", ["true"], {})
    low = os.pidfd_open(pid)
    high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 1500)
    os.close(low)
    supervisor = Supervisor(Settings(), Recounting())
    supervisor._processes.append(_Process(0, pid, high, pair[0]))
    assert supervisor.wait(10)


def test_a_worker_tells_what_was_counted_now_and_then_and_at_its_end(pair, monkeypatch):
    monkeypatch.setattr(worker_module, "_RECOUNT", 0.001)
    hooks, settings = Recounting(), Settings()
    one = Worker(settings, hooks, Sockets([], []), Counters(1).row(0), Identity(0, 0, None), pair[0])

    def stop_when_told_twice() -> None:
        if hooks.recounts >= 2:
            monkeypatch.setattr(worker_module, "_RECOUNT", 3600)
            one.loop.stop()
        else:
            one.loop.after(0.001, stop_when_told_twice)

    stop_when_told_twice()
    one.loop.run()
    before = hooks.recounts
    one.close()
    assert hooks.recounts == before + 1


def test_a_name_that_changes_moves_its_listener_alone_whatever_others_are_called(pair):
    targets = [("192.0.2.1", 1), ("192.0.2.2", 1)]
    listeners = tuple(FixedListener("web", ("127.0.0.1", 0), target) for target in targets)
    settings = Settings(listeners=listeners, steps=Steps(early=False))
    opened = [sockets.listening(one.bind, settings.limits, buffer=1 << 16) for one in listeners]
    own = Sockets(opened, [])
    one = Worker(settings, Recounting(), own, Counters(1).row(0), Identity(0, 0, None), pair[0])
    one.answer({"do": "resolved", "listener": 1, "address": ("192.0.2.9", 1)})
    assert [door.destination for door in one.entrances.values()] == [targets[0], ("192.0.2.9", 1)]
    one.close()
