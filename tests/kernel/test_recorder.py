"""The recorder: it sees what there is, harms nothing, and says what it could not keep."""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from tests.kernel.lab_hosts import python
from tests.polling import eventually

from ackward.capture.live import PROGRAM, LiveCapture, Scope
from ackward.capture.tracing import PROGRAM as TRACE_PROGRAM
from ackward.diagnosis.diagnose import diagnose
from ackward.diagnosis.exchanges import cut
from ackward.diagnosis.flows import join
from ackward.kernel.libbpf import Object
from ackward.kernel.sock_maps import run_once
from ackward.lab import run as lab
from ackward.lab.peer import Shape
from ackward.model.causes import Cause
from ackward.model.segments import Kind, Vantage

CGROUP_PROGRAMS = (
    (PROGRAM, "sent", "cgroup_skb/egress"),
    (PROGRAM, "received", "cgroup_skb/ingress"),
    (TRACE_PROGRAM, "trace_sent", "cgroup_skb/egress"),
    (TRACE_PROGRAM, "trace_received", "cgroup_skb/ingress"),
)


def frames():
    """Ethernet frames with IPv4 and IPv6 TCP, other protocols, options, lies about lengths, and noise."""
    draw = random.Random(1)
    yield b"\0" * 14
    for number in range(300):
        kind = draw.choice([0x0800, 0x86DD, 0x0806])
        tcp = struct.pack(
            "!HHIIBBHHH",
            7000,
            draw.randrange(65536),
            draw.randrange(2**32),
            1,
            draw.randrange(256),
            draw.randrange(256),
            1,
            0,
            0,
        )
        if kind == 0x0800:
            head = struct.pack(
                "!BBHHHBBH4s4s",
                0x40 | draw.choice([5, 5, 5, 0, 15]),
                0,
                40,
                0,
                0,
                64,
                draw.choice([6, 6, 17]),
                0,
                b"\x7f\0\0\1",
                b"\x7f\0\0\1",
            )
        else:
            head = struct.pack(
                "!IHBB16s16s", 6 << 28, 20, draw.choice([6, 6, 0, 43]), 64, b"\0" * 16, b"\0" * 16
            )
        frame = b"\0" * 12 + struct.pack("!H", kind) + head + tcp + draw.randbytes(draw.randrange(100))
        yield frame if number % 3 else frame[: draw.randrange(14, len(frame))]


@pytest.mark.parametrize(("path", "program", "_section"), CGROUP_PROGRAMS)
def test_every_packet_passes(path, program, _section):
    """What the kernel's own test run gives back is PASS for every frame."""
    with Object(path, purpose="test") as recorder:
        recorder.load()
        ran = 0
        for frame in frames():
            with suppress(OSError):  # the kernel itself refuses frames without a whole link header
                assert run_once(recorder.program_fd(program), frame) == 1
                ran += 1
        assert ran > 200


@pytest.mark.parametrize(("path", "program", "section"), CGROUP_PROGRAMS)
def test_every_path_returns_pass(path, program, section):
    """Proof over the code: each exit instruction is reached with r0 = 1 set by the instruction before it, and no
    jump skips that instruction."""
    dump = shutil.which("llvm-objdump")
    assert dump, "llvm is part of `make setup`"
    text = subprocess.run(
        [dump, "-d", "--no-show-raw-insn", f"--section={section}", path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    code = {int(number): what for number, what in re.findall(r"^\s+(\d+):\s+(.*)$", text, re.MULTILINE)}
    assert len(code) > 100, text
    targets = {
        int(number) + 1 + int(offset)
        for number, offset in re.findall(r"^\s+(\d+):.*goto ([+-]0?x?[0-9a-f]+)", text, re.MULTILINE)
        if not offset.startswith(("+0x", "-0x"))
    }
    targets |= {
        int(number) + 1 + int(offset, 16)
        for number, offset in re.findall(r"^\s+(\d+):.*goto ([+-]0x[0-9a-f]+)", text, re.MULTILINE)
    }
    order = sorted(code)
    exits = [number for number in order if code[number].strip() == "exit"]
    assert exits
    for number in exits:
        before = order[order.index(number) - 1]
        assert re.fullmatch(r"[rw]0 = (0x)?1", code[before].strip()), (program, code[before])
        assert number not in targets


def record(hosts, shape, **scope):
    with (
        lab.server(hosts, shape),
        LiveCapture(Scope(port=shape.port, **scope), [hosts.client, hosts.server]) as capture,
    ):
        lab.load("test", hosts, shape, capture, lambda _: None)
        return capture.finish()


def test_fast_exchanges_are_counted_and_slow_ones_recorded(hosts):
    recording = record(hosts, Shape(nagle=False, rounds=200), slow_ns=20_000_000)
    assert len(recording.segments) == 0
    report = diagnose(recording).report
    assert report.exchanges == 200
    assert sum(total.ns for total in report.causes.values()) == report.elapsed_ns > 0
    assert report.findings == []


def test_only_the_slow_exchanges_leave_the_kernel(hosts):
    recording = record(hosts, Shape(rounds=10), slow_ns=20_000_000)
    report = diagnose(recording).report
    assert report.exchanges == 10
    assert report.findings[0].exchanges == 9
    assert {socket.fast.count for socket in recording.sockets} == {
        1
    }  # the first round was fast, at both ends


def test_a_full_buffer_sheds_whole_flows_and_says_so(hosts):
    """The buffer holds a page: most is lost, what is kept is still a partition, and the loss is reported."""
    shape = Shape(rounds=400, nagle=False)
    with lab.server(hosts, shape):
        scope = Scope(port=shape.port, slow_ns=0, buffer_bytes=4096)
        with LiveCapture(scope, [hosts.client, hosts.server]) as capture:
            capture.poll = lambda: 0  # a reader that is far too slow
            lab.load("test", hosts, shape, capture, lambda _: None)
            del capture.poll
            recording = capture.finish()
    assert recording.shed_flows > 0
    assert any("overflowed" in note for note in recording.notes)
    report = diagnose(recording).report
    assert report.capture.dropped_flows == recording.shed_flows
    assert report.exchanges == 0  # both ends of the one connection are left out together


def test_a_transfer_longer_than_the_ring_is_recorded_whole(hosts):
    shape = Shape(nagle=False, rounds=1, pings=1, sizes=(900_000,), answer=900_000)
    recording = record(hosts, shape, slow_ns=0)
    assert {(socket.bytes_sent, socket.bytes_received) for socket in recording.sockets} == {
        (900_000, 900_000)
    }
    line = cut(*join(recording))
    for vantage in (Vantage.CLIENT, Vantage.SERVER):
        for kind in (Kind.SENT, Kind.RECEIVED):
            # Two cores reorder a veth now and then, and a probe may send some again: the union of all is the transfer.
            rows = line.at(vantage) & (line.segments["kind"] == kind) & (line.segments["bytes"] > 0)
            covered, reached = 0, 0
            for begin, end in sorted(zip(line.seq64[rows].tolist(), line.end64[rows].tolist(), strict=True)):
                reached = max(reached, begin)
                covered += max(end - reached, 0)
                reached = max(reached, end)
            assert covered == 900_000


@pytest.mark.parametrize("mapped", [False, True])
def test_ipv4_mapped_sockets_are_ipv4(hosts, mapped):
    """A server on :: sees IPv4 clients through mapped addresses; they are the same flow."""
    address = "::" if mapped else hosts.server_address(4)
    server = f"""
import socket
family = socket.AF_INET6 if ':' in '{address}' else socket.AF_INET
s = socket.create_server(('{address}', 7000), family=family, dualstack_ipv6={mapped})
print('ready', flush=True)
c, _ = s.accept()
while c.recv(100): c.sendall(b'x')
"""
    with LiveCapture(Scope(port=7000, slow_ns=0), [hosts.client, hosts.server]) as capture:
        with (
            python(hosts.server, server),
            python(
                hosts.client, CLIENT.format(address=hosts.server_address(4), kind="socket.SOCK_STREAM, 0")
            ) as client,
        ):
            assert client.wait(20) == 0
        recording = capture.finish()
    assert {socket.mapped for socket in recording.sockets if not socket.is_client} == {mapped}
    [flow] = diagnose(recording).report.flows
    assert flow.seen_from == "both"
    assert flow.server == f"{hosts.server_address(4)}:7000"


CLIENT = """
import socket
print('ready', flush=True)
c = socket.socket(socket.AF_INET, {kind})
c.connect(('{address}', 7000))
for _ in range(5):
    c.sendall(b'q'); assert c.recv(1)
c.close()
"""


def test_mptcp_is_recognised_and_named(hosts):
    server = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.bind(('0.0.0.0', 7000)); s.listen()
print('ready', flush=True)
c, _ = s.accept()
while c.recv(100): c.sendall(b'x')
"""
    with LiveCapture(Scope(port=7000, slow_ns=0), [hosts.client, hosts.server]) as capture:
        with (
            python(hosts.server, server),
            python(
                hosts.client, CLIENT.format(address=hosts.server_address(4), kind="socket.SOCK_STREAM, 262")
            ) as client,
        ):
            assert client.wait(20) == 0
        recording = capture.finish()
    assert {flow.protocol for flow in diagnose(recording).report.flows} == {"mptcp"}


def test_a_connection_older_than_the_watch_is_explained_too(hosts):
    """Its roles are learned from who listens; its first whole exchange is the first that begins under the watch."""
    shape = Shape(rounds=20)
    with (
        lab.server(hosts, shape),
        python(hosts.client, OLD.format(address=hosts.server_address(4))) as client,
    ):
        with LiveCapture(Scope(port=7000, slow_ns=0), [hosts.client, hosts.server]) as capture:
            client.stdin.write("go\n")
            client.stdin.flush()
            assert client.wait(20) == 0
            recording = capture.finish()
    assert not any(socket.role_seen for socket in recording.sockets)
    report = diagnose(recording).report
    assert report.exchanges == 10
    assert report.findings[0].cause is Cause.STANDOFF
    assert report.findings[0].server.endswith(":7000")


@pytest.mark.parametrize("port", [7000, 61616])
def test_of_an_older_connection_whose_listener_is_gone_the_ports_tell_the_server(hosts, port):
    """It is the one that no client is given: lower than those, or higher."""
    asking = OLD.format(address=hosts.server_address(4)).replace("7000", str(port))
    server = f"""
import socket
s = socket.create_server(('0.0.0.0', {port}))
print('ready', flush=True)
c, _ = s.accept()
s.close()
while True:
    got = 0
    while got < 300:
        data = c.recv(300)
        if not data: raise SystemExit
        got += len(data)
    c.sendall(b'x' * 100)
"""
    with (
        python(hosts.server, server),
        python(hosts.client, asking) as client,
        LiveCapture(Scope(port=port, slow_ns=0), [hosts.client, hosts.server]) as capture,
    ):
        client.stdin.write("go\n")
        client.stdin.flush()
        assert client.wait(20) == 0
        recording = capture.finish()
    roles = {socket.local.port == port: (socket.is_client, socket.role_seen) for socket in recording.sockets}
    assert roles == {True: (False, False), False: (True, False)}
    report = diagnose(recording).report
    assert report.exchanges == 10
    assert [flow.seen_from for flow in report.flows] == ["both"]
    assert report.flows[0].server.endswith(f":{port}")


OLD = """
import socket, sys
c = socket.create_connection(('{address}', 7000))
def ask():
    c.sendall(b'q' * 100); c.sendall(b'q' * 200)
    got = 0
    while got < 100: got += len(c.recv(100))
ask(); ask()
print('ready', flush=True)
sys.stdin.readline()
for _ in range(10): ask()
c.close()
"""


def test_nothing_stays_in_the_kernel(hosts):
    def programs():
        return {
            line.split(":")[0]
            for line in subprocess.run(
                ["bpftool", "prog"], capture_output=True, text=True, check=True
            ).stdout.splitlines()
            if "name sent" in line or "name received" in line
        }

    if not shutil.which("bpftool"):
        pytest.skip("probe failed: bpftool is not installed")
    before = programs()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    record(hosts, Shape(rounds=2, nagle=False), slow_ns=0)
    # The kernel lets go of a link's program a moment later.
    assert eventually(lambda: not programs() - before)
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
