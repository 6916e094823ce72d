"""Bad clients, handlers and directories of the agent's socket: one client never hurts another."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cluster.cni_runtime import ASKS, EVERY, Agent, quick
from tests.polling import eventually
from tests.unit.stub_runs import RESULT, configuration, run

from ackward.errors import Refused, Unavailable
from ackward.kernel.namespaces import Namespace
from ackward.node import requests
from ackward.node.requests import Server
from ackward.node.wire import HEADER, PROTOCOL, Answer, Request


def connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(20)
    made.connect(str(path))
    return made


MISBEHAVIOUR: dict[str, Callable[[socket.socket], object]] = {
    "silent": lambda client: None,
    "gone": lambda client: client.close(),
    "rubbish": lambda client: client.sendall(os.urandom(4096)),
    "cut": lambda client: (
        client.sendall(Request({}, b"x" * 99).pack()[:-1]),
        client.shutdown(socket.SHUT_WR),
    ),
    "too much": lambda client: client.sendall(HEADER.pack(PROTOCOL, 1 << 31, 1 << 31)),
    "reset": lambda client: (client.sendall(Request({}, b"{}").pack()), client.close()),
}


def test_clients_that_misbehave_hurt_nobody(
    agent: Agent, here: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "DEADLINE_S", 0.3)
    with agent.running(), contextlib.ExitStack() as stack:
        for misbehave in MISBEHAVIOUR.values():
            for _ in range(5):
                misbehave(stack.enter_context(connected(agent.socket)))
        done = run("ADD", configuration(agent.socket, ASKS), netns=str(here.path))
        assert (done.code, len(quick(here))) == (0, EVERY)
        assert eventually(lambda: len([words for words in agent.troubles if "no answer" in words]) >= 20)
        assert run("DEL", configuration(agent.socket), netns=str(here.path)).code == 0
    assert not [words for words in agent.troubles if "failed" in words]


def test_a_handler_that_fails_is_no_answer(tmp_path: Path) -> None:
    def fails(request: Request) -> Answer:
        raise LookupError("a fault of ours")

    agent = Agent(tmp_path / "node")
    agent.commands = fails  # type: ignore[assignment]
    with agent.running():
        done = run("ADD", configuration(agent.socket, ASKS))
        assert (done.code, json.loads(done.out)) == (0, RESULT)
        assert (
            run("STATUS", configuration(agent.socket, cniVersion="1.1.0", failurePolicy="closed")).error[
                "code"
            ]
            == 50
        )
    assert "a request failed: LookupError: a fault of ours" in agent.troubles


def test_only_root_may_ask(agent: Agent) -> None:
    with agent.running():
        assert agent.socket.stat().st_mode & 0o777 == 0o600
        for path in (
            agent.socket,
            *[parent for parent in agent.socket.parents if parent.is_relative_to("/tmp")],
        ):
            path.chmod(0o777)
        code = f"""
import os, socket
os.setuid(65534)
made = socket.socket(socket.AF_UNIX)
made.connect({str(agent.socket)!r})
made.settimeout(10)
assert made.recv(1) == b""
"""
        subprocess.run([sys.executable, "-c", code], check=True)
    assert any("user 65534" in words for words in agent.troubles)
    assert agent.served == []


def test_a_directory_that_was_there_keeps_its_mode_and_others_may_not_write_in_it(tmp_path: Path) -> None:
    agent = Agent(tmp_path / "node")
    with agent.running():
        assert agent.directory.stat().st_mode & 0o7777 == 0o700
    agent.directory.chmod(0o755)
    with agent.running():
        assert agent.directory.stat().st_mode & 0o7777 == 0o755
    for mode, owner in ((0o1777, 0), (0o775, 0), (0o700, 65534)):
        agent.directory.chmod(mode)
        os.chown(agent.directory, owner, -1)
        with pytest.raises(Refused, match="others may write"):
            Server(agent.socket, agent.commands, agent.troubles.append).open()
        assert agent.directory.stat().st_mode & 0o7777 == mode
    assert not agent.socket.exists()


def test_one_agent_at_a_time_and_a_dead_ones_place_is_taken(agent: Agent) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(agent.socket))
    with agent.running():
        assert (
            run("STATUS", configuration(agent.socket, cniVersion="1.1.0", failurePolicy="closed")).code == 0
        )
        other = Server(agent.socket, agent.commands, agent.troubles.append)
        with pytest.raises(Unavailable, match="another node agent"):
            other.open()
        assert (
            run("STATUS", configuration(agent.socket, cniVersion="1.1.0", failurePolicy="closed")).code == 0
        )
    assert not agent.socket.exists()


def test_requests_that_run_are_finished(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(request: Request) -> Answer:
        entered.set()
        assert leave.wait(20)
        return Answer(1, b'{"code":100}')

    path, stop = tmp_path / "node/agent.sock", threading.Event()
    server = Server(path, slow, print)
    server.open()
    serving = threading.Thread(target=server.run, args=(stop,))
    serving.start()
    with connected(path) as client:
        client.sendall(Request({"CNI_COMMAND": "CHECK"}, b"{}").pack())
        assert entered.wait(10)
        stop.set()
        leave.set()
        assert client.recv(100) == Answer(1, b'{"code":100}').pack()
    serving.join(10)
    assert not serving.is_alive()
    server.close()
