"""`ackward sockets` against what the kernel tells the sockets' own program, and against `ss`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import struct
import subprocess
import threading
from pathlib import Path

import pytest
from tests.kernel.cgroups import removed
from tests.kernel.lab_hosts import ackward_json, python
from tests.kernel.quickack_hosts import ip
from tests.kernel.sockets.pairs import Pair, of
from tests.polling import eventually

import ackward.loop.sockets as looking
from ackward.errors import UnknownName, UsageError
from ackward.kernel import sock_diag
from ackward.kernel.namespaces import Namespace, call_inside, temporary
from ackward.loop.sockets import sockets
from ackward.model.sockets import Suspicion

SIOCOUTQ, SIOCOUTQNSD = 0x5411, 0x894B  # include/uapi/linux/sockios.h


def option(end: socket.socket, number: int) -> int:
    return end.getsockopt(socket.IPPROTO_TCP, number)


def test_values_are_those_of_the_sockets_own_tcp_info(pair):
    pair.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(5):
        pair.client.sendall(b"q" * 300)
        pair.server.recv(300)
        pair.server.sendall(b"a" * 100)
        pair.client.recv(100)
    for end in (pair.client, pair.server):
        assert eventually(
            lambda end=end: not sock_diag.tcp_info(end.getsockopt(6, socket.TCP_INFO, 248))["unacked"]
        )
        told = sock_diag.tcp_info(end.getsockopt(6, socket.TCP_INFO, 248))
        seen = pair.seen(end)
        assert seen.state == "ESTABLISHED"
        assert (seen.srtt_ns, seen.rto_ns, seen.min_rtt_ns) == (
            told["rtt"] * 1000,
            told["rto"] * 1000,
            told["min_rtt"] * 1000,
        )
        assert (seen.ato_ns, seen.cwnd, seen.mss) == (told["ato"] * 1000, told["snd_cwnd"], told["snd_mss"])
        assert (seen.bytes_sent, seen.bytes_received) == (told["bytes_sent"], told["bytes_received"])
        assert seen.window_bytes == told["snd_wnd"]
        assert seen.congestion_control == end.getsockopt(6, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
        assert seen.process.pid == os.getpid()
        assert seen.process.netns == pair.host.name
        assert seen.netns == pair.host.inode
        assert seen.mark == 0
    assert (pair.seen(pair.client).nodelay, pair.seen(pair.server).nodelay) == (False, True)


def test_values_are_those_of_ss(pair):
    pair.client.sendall(b"q" * 300)
    assert eventually(lambda: pair.seen(pair.server).unread_bytes == 300)

    def ss() -> str:
        return subprocess.run(["ss", "-tionemOH"], capture_output=True, text=True, check=True).stdout

    for line in call_inside(pair.host, ss).splitlines():
        state, received, written, local, remote = line.split()[:5]
        said = dict(re.findall(r"(\w+):(\S+)", line))
        report = sockets(netns=pair.host.name)
        [seen] = [one for one in report.sockets if one.inode == int(said["ino"])]
        assert state == "ESTAB"
        assert (seen.local, seen.remote) == (local, remote)
        assert (seen.unread_bytes, seen.unacked_bytes + seen.unsent_bytes) == (int(received), int(written))
        assert seen.cookie == int(said["sk"], 16)
        assert seen.cwnd == int(said["cwnd"])
        assert seen.srtt_ns == round(float(said["rtt"].partition("/")[0]) * 1e6)
        assert seen.ato_ns == int(float(said.get("ato", 0)) * 1e6)
        assert f"/{said['cgroup'].lstrip('/')}" == seen.cgroup


def test_pingpong_follows_the_socket_option(pair):
    for value in (0, 1, 0):
        pair.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, value)
        seen = pair.seen(pair.server)
        assert seen.pingpong is (value == 0) is (not option(pair.server, socket.TCP_QUICKACK))
    pair.client.sendall(b"first data: the kernel gives the receiver some quick ACKs (tcp_incr_quickack())")
    assert eventually(lambda: (pair.seen(pair.server).quick or 0) > 0)
    assert pair.seen(pair.client).quick == 0


def test_cork_nagle_and_what_they_hold(pair):
    pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    pair.client.send(b"x" * 100)
    seen = pair.seen(pair.client)
    assert (seen.cork, seen.nodelay, seen.unsent_bytes, seen.unacked) == (True, False, 100, 0)
    assert [suspect.what for suspect in seen.suspects] == [Suspicion.HELD_BY_CORK]
    pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    assert eventually(lambda: pair.seen(pair.client).unsent_bytes == 0)
    assert option(pair.client, socket.TCP_NODELAY) == 0, "looking changed nothing"
    pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert (pair.seen(pair.client).cork, pair.seen(pair.client).nodelay) == (False, True)


def test_a_backlog_is_told_apart_from_what_is_under_way(pair):
    pair.client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            pair.client.send(b"x" * 65536)
    queue, unsent = (
        struct.unpack("i", fcntl.ioctl(pair.client, request, bytes(4)))[0]
        for request in (SIOCOUTQ, SIOCOUTQNSD)
    )
    seen = pair.seen(pair.client)
    assert seen.unsent_bytes == unsent > 0
    assert seen.unacked_bytes + seen.unsent_bytes == queue
    assert eventually(lambda: pair.seen(pair.client).timer == "zero-window-probe")
    assert Suspicion.WINDOW_CLOSED in [suspect.what for suspect in pair.seen(pair.client).suspects]


def test_a_standoff_shows_while_it_lasts_and_comes_first(pair):
    """One end holds, the other owes: both are suspects, the holder first. A look may come too late: it is repeated."""
    calm = Pair(pair.host)

    def caught() -> bool:
        pair.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        pair.client.send(b"x" * 100)
        pair.client.send(b"y" * 200)
        first, second, *_ = sockets(netns=pair.host.name).sockets
        for end in (pair.server, pair.client):
            end.setblocking(False)
        assert eventually(lambda: option_sum(pair) == 0)
        if not (first.suspects and second.suspects):
            return False
        assert (first.inode, second.inode) == tuple(
            os.fstat(end.fileno()).st_ino for end in (pair.client, pair.server)
        )
        assert (first.suspects[0].what, second.suspects[0].what) == (
            Suspicion.HELD_BY_NAGLE,
            Suspicion.ACK_DELAYED,
        )
        assert "Nagle holds 200 B until the peer acknowledges 100 B" in first.suspects[0].why
        return True

    def option_sum(pair: Pair) -> int:
        with contextlib.suppress(BlockingIOError):
            pair.server.recv(1000)
        return struct.unpack("i", fcntl.ioctl(pair.client, SIOCOUTQ, bytes(4)))[0]

    try:
        assert eventually(caught)
    finally:
        calm.close()


@pytest.mark.parametrize("scope", ["route", "sport", "dport", "mark", "uid"])
def test_route_quickack_as_the_connection_would_find_it(pair, scope):
    address, port = pair.server.getsockname()[:2]
    family = "-6" if ":" in address else "-4"
    before = pair.seen(pair.server), pair.seen(pair.client)
    assert [end.route_quickack for end in before] == [False, False]
    if scope == "route":
        where = ["local", address, "dev", "lo", "table", "local"]
        ip(pair.host, family, "route", "delete", *where)
        ip(pair.host, family, "route", "add", *where, "quickack", "1")
        expected = (True, True)
    else:
        ip(pair.host, family, "route", "add", "local", address, "dev", "lo", "table", "77", "quickack", "1")
        selector = {
            "sport": ["ipproto", "tcp", "sport", str(port)],
            "dport": ["ipproto", "tcp", "dport", str(port)],
            "mark": ["fwmark", "0x40/0xff"],
            "uid": ["uidrange", "0-0"],
        }[scope]
        ip(pair.host, family, "rule", "add", "pref", "0", *selector, "lookup", "77")
        ip(pair.host, family, "rule", "add", "pref", "1", "lookup", "local")
        ip(pair.host, family, "rule", "del", "pref", "0", "lookup", "local")
        pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x40)
        expected = {
            "sport": (True, False),
            "dport": (False, True),
            "mark": (True, False),
            "uid": (True, True),
        }[scope]
    seen = pair.seen(pair.server), pair.seen(pair.client)
    assert tuple(end.route_quickack for end in seen) == expected


def test_equal_connections_in_two_namespaces_stay_apart(host):
    with temporary("sockets-twin") as twin:
        pairs = [Pair(host, port=7001), Pair(twin, port=7001)]
        try:
            for made in pairs:
                made.client.close()
                made.server.close()

            def connect(place: Namespace) -> tuple[socket.socket, socket.socket]:
                def bound() -> socket.socket:
                    return socket.create_connection(("127.0.0.1", 7001), source_address=("127.0.0.1", 50001))

                made = next(one for one in pairs if one.host == place)
                client = call_inside(place, bound)
                return client, made.listener.accept()[0]

            for made in pairs:
                made.client, made.server = connect(made.host)
            pairs[0].client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pairs[1].server.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            report = sockets(pid=os.getpid(), port=50001)
            assert {one.process.netns for one in report.sockets} == {host.name, twin.name}
            for made, nodelay, pingpong in ((pairs[0], True, False), (pairs[1], False, True)):
                client, server = of(report, made.client), of(report, made.server)
                assert (client.netns, server.netns) == (made.host.inode, made.host.inode)
                assert (client.local, client.remote) == ("127.0.0.1:50001", "127.0.0.1:7001")
                assert (client.nodelay, server.pingpong) == (nodelay, pingpong)
        finally:
            for made in pairs:
                made.close()


def test_states_and_filters(pair):
    listener = pair.listener.fileno()
    inode = os.fstat(listener).st_ino
    pair.client.close()
    assert eventually(
        lambda: [s.state for s in sockets(netns=pair.host.name).sockets].count("FIN_WAIT2") == 1
    )
    states = [one.state for one in sockets(netns=pair.host.name).sockets]
    assert sorted(states) == ["CLOSE_WAIT", "FIN_WAIT2"]
    [heard] = sockets(netns=pair.host.name, listening=True).sockets
    assert (heard.inode, heard.remote, heard.accept_queue, heard.quick, heard.cwnd) == (
        inode,
        None,
        0,
        None,
        None,
    )
    pair.server.close()
    assert eventually(lambda: not sockets(netns=pair.host.name).sockets)
    everything = sockets(netns=pair.host.name, all_=True).sockets
    assert [one.state for one in everything] in (["TIME_WAIT", "LISTEN"], ["LISTEN"])
    port = pair.listener.getsockname()[1]
    assert len(sockets(netns=pair.host.name, all_=True, port=port).sockets) == len(everything)
    assert sockets(netns=pair.host.name, all_=True, port=port - 1 or 2).sockets == []
    with pytest.raises(UnknownName):
        sockets(pid=1 << 22)
    with pytest.raises(UsageError):
        sockets(port=0)


def test_a_cgroup_and_those_below_it():
    mount = looking.cgroup2_mount()
    parent = mount / f"ackward-sockets-{os.getpid()}"
    child, other = parent / "pod", parent / "po"
    child.mkdir(parents=True)
    try:
        with temporary("sockets-cgroup") as host:
            script = (
                f"open({str(child / 'cgroup.procs')!r}, 'w').write('0')\n"
                "import socket\nl = socket.create_server(('127.0.0.1', 0))\n"
                "c = socket.create_connection(l.getsockname())\nprint('ready', flush=True)\ninput()"
            )
            with python(host, script) as process:
                command = ("sockets", "--netns", host.name, "--cgroup")
                for wanted in (str(parent), str(child), f"{parent.name}/pod"):
                    found = ackward_json(*command, wanted)["sockets"]
                    assert len(found) == 2
                    assert process.pid in {one["process"]["pid"] for one in found}
                    assert {one["cgroup"] for one in found} == {f"/{parent.name}/pod"}
                other.mkdir()
                assert ackward_json(*command, str(other))["sockets"] == []
    finally:
        assert eventually(lambda: all(map(removed, (child, other, parent))))


def test_sockets_that_vanish_in_between_are_no_error(host):
    """Connections come and go at full speed while they are looked at, options read through their descriptors."""
    ended = threading.Event()
    listener = call_inside(host, socket.create_server, ("127.0.0.1", 7000))

    def churn() -> None:
        while not ended.is_set():
            with call_inside(host, socket.create_connection, ("127.0.0.1", 7000)), listener.accept()[0]:
                pass

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        seen = [sockets(netns=host.name, all_=True) for _ in range(8)]
        assert any(len(report.sockets) > 1 for report in seen)
        assert all(of(report, listener).state == "LISTEN" for report in seen)
    finally:
        ended.set()
        thread.join()
        listener.close()


def test_a_namespace_that_ends_is_left_out(host, monkeypatch):
    gone = Namespace("gone", Path("/proc/4194304/ns/net"), 1)
    monkeypatch.setattr(looking.namespaces, "in_sight", lambda: [gone, host])
    assert [one.name for one in sockets().namespaces] == [host.name]


def test_looking_lets_go_of_every_descriptor(pair):
    before = sorted(Path("/proc/self/fd").iterdir())
    flags = fcntl.fcntl(pair.client, fcntl.F_GETFL), fcntl.fcntl(pair.client, fcntl.F_GETFD)
    sockets()
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert (fcntl.fcntl(pair.client, fcntl.F_GETFL), fcntl.fcntl(pair.client, fcntl.F_GETFD)) == flags
    pair.client.close()
    assert pair.server.recv(1) == b""
