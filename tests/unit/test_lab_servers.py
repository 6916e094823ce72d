"""The lab's servers and programs end with it."""

from __future__ import annotations

import select
import socket
import sys
from pathlib import Path

import pytest

from ackward.errors import Unavailable
from ackward.kernel.namespaces import current
from ackward.lab import local_servers, programs
from ackward.lab.peer import Shape

_DEAF = """
import signal, socket, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with socket.create_server(("127.0.0.1", PORT)):
    time.sleep(60)
"""


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_servers, "_LONGEST_END", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-c", _DEAF.replace("PORT", str(port))]
    with local_servers.started(current(), command, port, tmp_path):
        assert local_servers._listens(port)
    assert not local_servers._listens(port)


def test_a_program_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(Unavailable, match=r"the link did not start: .*No module named ackward\.nothing"),
        programs.ready(current(), "ackward.nothing", name="the link", consequence="nothing was measured"),
    ):
        raise AssertionError("it is not ready")


def test_a_program_that_takes_too_long_is_ended_and_what_it_said_is_kept() -> None:
    process = programs.start(current(), "ackward.lab.peer", "serve", "127.0.0.1", Shape(port=0).to_json())
    assert select.select([process.stdout], [], [], 30)[0]
    said, _ = programs.finish(process, 0.1)
    assert said == "ready\n"
    assert process.returncode == -9
