"""`ackward sockets` without what it likes to ask: without sock_diag, without privileges; and its command line."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from tests.kernel.lab_hosts import ACKWARD, ackward, ackward_json
from tests.kernel.quickack_hosts import ip
from tests.kernel.sockets.pairs import of
from tests.polling import eventually

from ackward.errors import Unavailable
from ackward.kernel import proc_tcp, sock_diag
from ackward.kernel.namespaces import command_inside
from ackward.kernel.sock_diag import TcpState
from ackward.loop.sockets import sockets
from ackward.model.sockets import SocketReport

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
SCHEMA = Path(__file__).parents[3] / "docs/sockets.schema.json"


def test_without_sock_diag_proc_tells_the_same(pair):
    pair.client.sendall(b"q" * 300)
    assert eventually(lambda: pair.seen(pair.server).unread_bytes == 300)
    by_diag = {one.key: one for one in sock_diag.dump(pair.host, TcpState)}
    by_proc = {one.key: one for one in proc_tcp.records(proc_tcp.read(pair.host), TcpState)}
    assert by_diag.keys() == by_proc.keys()
    assert len(by_proc) == 3
    for key, one in by_proc.items():
        other = by_diag[key]
        assert (one.local, one.remote, one.state, one.family) == (
            other.local,
            other.remote,
            other.state,
            other.family,
        )
        assert (one.uid, one.inode) == (other.uid, other.inode)
        if one.state != TcpState.LISTEN:
            assert (one.read_queue, one.write_queue) == (other.read_queue, other.write_queue)
            assert one.info["ato"] == other.info["ato"]
            assert one.info["snd_cwnd"] == other.info["snd_cwnd"]


def test_a_kernel_without_sock_diag_is_said_and_the_ack_state_stays(pair, monkeypatch):
    def absent(*_):
        raise Unavailable(
            "this kernel has no sock_diag (CONFIG_INET_DIAG)", consequence="less is told", next_step="load it"
        )

    monkeypatch.setattr(sock_diag, "dump", absent)
    pair.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    report = sockets(netns=pair.host.name)
    assert any("no sock_diag" in note for note in report.notes)
    seen = of(report, pair.server)
    assert (seen.pingpong, seen.nodelay, seen.route_quickack) == (True, False, False)
    assert (seen.srtt_ns, seen.unsent_bytes, seen.cookie) == (None, None, None)
    with pytest.raises(Unavailable, match="does not tell the cgroup"):
        sockets(netns=pair.host.name, cgroup="/")


def test_nobody_sees_what_everyone_may_and_is_told_what_root_would_add():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            port = str(client.getsockname()[1])
            command = [*NOBODY, ACKWARD, "sockets", "--port", port, "--json"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            report = SocketReport.model_validate_json(done.stdout)
            mine = of(report, client)
            assert mine.quick is not None
            assert (mine.state, mine.pingpong, mine.route_quickack) == ("ESTABLISHED", False, False)
            assert mine.srtt_ns
            assert mine.cgroup is not None
            assert (mine.process.pid, mine.nodelay, mine.cork, mine.mark) == (None, None, None, None)
            assert report.root_would_add
            [line] = done.stderr.splitlines()
            assert f"sudo {ACKWARD} sockets --port {port} --json" in line
            done = subprocess.run(
                [*NOBODY, ACKWARD, "sockets", "--pid", str(os.getpid())],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 3
            assert "sudo" in done.stderr


def test_nobody_sees_routes_by_port_but_none_by_mark(pair):
    def look() -> SocketReport:
        command = command_inside(pair.host, [*NOBODY, ACKWARD, "sockets", "--json"])
        return SocketReport.model_validate_json(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout
        )

    address, port = pair.server.getsockname()[:2]
    family = "-6" if ":" in address else "-4"
    ip(pair.host, family, "route", "add", "local", address, "dev", "lo", "table", "77", "quickack", "1")
    ip(pair.host, family, "rule", "add", "pref", "0", "ipproto", "tcp", "sport", str(port), "lookup", "77")
    ip(pair.host, family, "rule", "add", "pref", "1", "lookup", "local")
    ip(pair.host, family, "rule", "del", "pref", "0", "lookup", "local")
    report = look()
    assert [of(report, end).route_quickack for end in (pair.server, pair.client)] == [True, False]
    ip(pair.host, family, "rule", "add", "pref", "2", "fwmark", "0x40", "lookup", "77")
    report = look()
    assert [one.route_quickack for one in report.sockets] == [None, None]
    assert "the route of 2 connections, which depends on a mark" in report.root_would_add


def test_the_command_line(pair):
    pair.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    printed = ackward("sockets", "--netns", pair.host.name)
    assert printed.returncode == 0
    header, *lines = printed.stdout.splitlines()
    assert header.split()[:6] == ["state", "local", "remote", "process", "quick", "pp"]
    assert max(map(len, [header, *lines])) <= 120
    report = ackward_json("sockets", "--netns", pair.host.name)
    assert report["schema"] == "ackward/sockets/1"
    assert len(report["sockets"]) == len(lines) == 2
    published = json.loads(SCHEMA.read_text())["$defs"]["Socket"]
    assert all(one.keys() == published["properties"].keys() for one in report["sockets"])
    assert ackward("sockets", "--port", "0").returncode == 2
    assert ackward("sockets", "--netns", "no-such-namespace").returncode == 2
    empty = ackward("sockets", "--netns", pair.host.name, "--port", "1")
    assert (empty.returncode, empty.stdout) == (0, "")
