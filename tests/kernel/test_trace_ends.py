"""How a trace ends: by itself, by Ctrl-C, with its reader or with whom it follows; nothing of it stays, nothing is lost in silence."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from tests.kernel.lab_hosts import ACKWARD, python
from tests.kernel.trace_hosts import run_load, tracing
from tests.polling import eventually

from ackward.capture.live import Scope
from ackward.capture.tracing import TraceSource
from ackward.lab import run as lab
from ackward.lab.peer import Shape


def test_the_end_of_the_process_that_was_named_is_said(hosts):
    with python(hosts.client, "print('ready', flush=True); input()") as process:
        with tracing("--pid", str(process.pid)) as trace:
            process.kill()
            process.wait()
            said = trace.process.stderr.readline()
            assert said.startswith(f"Process {process.pid} has ended: what its connections still do")
            assert trace.end() == []


def programs():
    if not shutil.which("bpftool"):
        pytest.skip("probe failed: bpftool is not installed")
    listed = subprocess.run(["bpftool", "-j", "prog"], capture_output=True, text=True, check=True).stdout
    return {entry["id"] for entry in json.loads(listed) if entry.get("name", "").startswith("trace_")}


def test_after_control_c_nothing_stays_attached(hosts):
    before = programs()
    with tracing("--netns", hosts.server.name) as trace:
        assert len(programs() - before) == 5
        trace.end()
    # The kernel lets go of a link's program a moment later.
    assert eventually(lambda: not programs() - before)


def test_a_reader_that_goes_away_ends_it_quietly(hosts):
    shape = Shape(rounds=5)
    before = programs()
    with lab.server(hosts, shape):
        shell = subprocess.Popen(
            f"{ACKWARD} trace --netns {hosts.server.name} --for 30s | head -1",
            shell=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert shell.stderr.readline() == "Tracing.\n"
        run_load(hosts, shape)
        line, complaint = shell.communicate(timeout=20)
    assert line.count("\n") == 1
    assert complaint == ""
    assert eventually(lambda: not programs() - before)


def test_events_that_find_no_room_are_counted(hosts):
    shape = Shape(nagle=False, rounds=50)
    scope = Scope(port=shape.port, netns=hosts.server, buffer_bytes=4096)
    with lab.server(hosts, shape), TraceSource(scope, every_ack=True) as source:
        run_load(hosts, shape)
        assert source.lost() > 0
        assert len(source.wait(1)) > 0
        assert source.lost() == 0


def test_it_ends_by_itself_when_told_how_long_or_how_many(hosts):
    shape = Shape(rounds=5)
    with lab.server(hosts, shape), tracing("--netns", hosts.server.name, "--count", "3") as trace:
        run_load(hosts, shape)
        output, _ = trace.process.communicate(timeout=20)
    assert (trace.process.returncode, output.count("\n")) == (0, 3)
    with tracing("--netns", hosts.server.name, "--for", "100ms") as trace:
        assert trace.process.wait(20) == 0
