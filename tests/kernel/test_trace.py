"""The trace: what it tells agrees with tcpdump and with the kernel's counters, and it leaves nothing behind."""

from __future__ import annotations

import re
import statistics
from contextlib import ExitStack

import pytest
from tests.kernel.lab_hosts import program, python
from tests.kernel.trace_hosts import ASKING, of, run_load, traced, tracing

from ackward.lab import run as lab
from ackward.lab.peer import Shape
from ackward.lab.topology import DEVICE, two_hosts

MS = 1_000_000

PACKET = re.compile(
    r"^(?P<time>\d+\.\d{6}) IP6? (?P<source>\S+) > (?P<target>\S+): Flags \[(?P<flags>\S+)\],"
    r"(?: seq (?P<seq>\d+)(?::(?P<end>\d+))?,)?(?: ack (?P<ack>\d+),)? .*length (?P<length>\d+)"
)


def test_what_the_standoff_yields_is_what_tcpdump_shows(hosts):
    """Per round one ACK that its timer sent and one held write; seq, ack, times and lengths are the packets'."""
    shape = Shape(rounds=5)
    # -U and -l: each packet is written when it is seen. The last is waited for below.
    command = [
        "tcpdump",
        "-i",
        DEVICE,
        "-nn",
        "-S",
        "-tt",
        "-l",
        "-U",
        "--immediate-mode",
        "tcp",
        "port",
        "7000",
    ]
    with lab.server(hosts, shape), program(hosts.server, command) as dump:
        while "listening on" not in dump.stderr.readline():
            assert dump.poll() is None
        with tracing("--port", "7000") as trace:
            run_load(hosts, shape)
            events = trace.end(hosts.client, hosts.server)
        packets = []
        while sum("F" in packet["flags"] for packet in packets) < 2:
            packets.append(PACKET.match(dump.stdout.readline()))
            assert packets[-1]
    first = {packet["source"]: int(packet["seq"]) for packet in packets if "S" in packet["flags"]}
    assert len(first) == 2

    def packet_of(event):
        source, target = event["local"].replace(":", "."), event["remote"].replace(":", ".")
        [found] = [
            packet
            for packet in packets
            if (packet["source"], packet["target"]) == (source, target)
            and int(packet["length"]) == event["bytes"]
            and int(packet["ack"] or 0) == event["ack"]
            and (not event["bytes"] or int(packet["seq"]) == event["seq"])
        ]
        assert event["relative_seq"] == event["seq"] - first[source] & 0xFFFFFFFF
        assert event["relative_ack"] == event["ack"] - first[target] & 0xFFFFFFFF
        return found

    fired = of(events, "ack", outcome="fired")
    # A hold of the first round ends with an ACK that came at once.
    held = [event for event in of(events, "held") if event["delay_ns"] > 20 * MS]
    assert len(fired) == len(held) == shape.rounds - 1
    assert {event["netns"] for event in fired} == {hosts.server.inode}
    assert {event["netns"] for event in held} == {hosts.client.inode}
    assert {(event["held_bytes"], event["rule"], event["released_by"]) for event in held} == {
        (200, "nagle", "ack")
    }
    for event in fired:
        assert 36 * MS <= event["delay_ns"] < 200 * MS  # TCP_DELACK_MIN less a tick; a busy machine adds
    apart = [abs(event["time_ns"] / 1e9 - float(packet_of(event)["time"])) for event in fired + held]
    assert statistics.median(apart) < 0.001
    assert {event["process"]["netns"] for event in fired} == {hosts.server.name}
    assert all(event["process"]["pid"] for event in fired + held)
    # Each timer leaves pingpong, each answer enters it again.
    because = [event["because"] for event in of(events, "mode", netns=hosts.server.inode)]
    assert because.count("delayed-ACK timer") == shape.rounds - 1
    assert because.count("data sent") == shape.rounds


def test_healthy_traffic_yields_neither(hosts):
    events = traced(hosts, Shape(nagle=False, rounds=30), "--slow", "5ms")
    assert not of(events, "held")
    assert not of(events, "ack", outcome="fired")
    assert not of(events, "probe")


def test_an_ack_that_left_with_data_is_told_as_such_with_its_time(hosts):
    """A server that thinks for 15 ms: its kernel arms the timer, and the answer takes the ACK along."""
    events = traced(hosts, Shape(pings=1, sizes=(100,), latency=15, rounds=8), "--acks")
    along = of(events, "ack", outcome="with-data", netns=hosts.server.inode)
    slow = [event for event in along if event["bytes"]]
    late = of(events, "ack", outcome="fired", netns=hosts.server.inode)  # a busy machine thinks for longer
    assert len(slow) + len(late) == 7  # the first request was acknowledged at once
    assert len(slow) >= 4
    assert all(15 * MS <= event["delay_ns"] < 50 * MS for event in slow)
    armed = of(events, "ack", outcome="armed", netns=hosts.server.inode)
    assert {event["data_ns"] for event in slow} <= {event["data_ns"] for event in armed}
    assert all(event["mode"]["pingpong"] for event in armed)


TOGGLING = """
import socket
s = socket.create_server(('0.0.0.0', 7000))
print('ready', flush=True)
c, _ = s.accept()
for answer in range(8):
    assert c.recv(100)
    if answer == 3: c.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    c.sendall(b'x')
assert not c.recv(100)
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
c.close()
"""


def test_a_toggle_by_setsockopt_is_told(hosts):
    """In the middle of an answer's round, with an ACK pending: it is flushed, and pingpong is left without a timer."""
    with python(hosts.server, TOGGLING), tracing("--netns", hosts.server.name, "--acks") as trace:
        with python(hosts.client, ASKING.format(address=hosts.server_address(4), rounds=8)) as client:
            assert client.wait(20) == 0
        events = trace.end(hosts.server)
    toggles = of(events, "mode", because="setsockopt TCP_QUICKACK")
    assert toggles
    assert toggles[0]["mode"]["pingpong"] < toggles[0]["before"]["pingpong"]
    assert (toggles[0]["relative_seq"], toggles[0]["relative_ack"]) == (4, 5)  # three answers, four requests
    assert (toggles[0]["before"]["quickack"], toggles[0]["mode"]["quickack"]) == (False, True)


OLDER = """
import socket, sys
c = socket.create_connection(('{address}', 7000))
def ask():
    c.sendall(b'q' * 100); c.sendall(b'q' * 200)
    got = 0
    while got < 100: got += len(c.recv(100))
ask(); ask()
print('ready', flush=True)
sys.stdin.readline()
for _ in range(3): ask()
c.close()
"""


@pytest.mark.parametrize("family", [4, 6])
def test_relative_numbers_are_right_for_a_connection_older_than_the_trace(hosts, family):
    """They count the bytes since the SYNs, which nobody saw."""
    with (
        lab.server(hosts, Shape()),
        python(hosts.client, OLDER.format(address=hosts.server_address(family))) as client,
        tracing("--port", "7000") as trace,
    ):
        client.stdin.write("go\n")
        client.stdin.flush()
        assert client.wait(20) == 0
        events = trace.end(hosts.client, hosts.server)
    held = [(event["relative_seq"], event["relative_ack"]) for event in of(events, "held")]
    assert held == [(1 + 300 * before + 100, 1 + 100 * before) for before in (2, 3, 4)]
    fired = [(event["relative_seq"], event["relative_ack"]) for event in of(events, "ack", outcome="fired")]
    assert fired == [(answers, seq) for seq, answers in held]


BOUND = """
import socket
print('ready', flush=True)
c = socket.socket()
c.bind(('198.18.0.1', 5555))
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, {nodelay})
c.connect(('{address}', 7000))
for _ in range(4):
    c.sendall(b'q' * 100); c.sendall(b'q' * 200)
    got = 0
    while got < 100: got += len(c.recv(100))
c.close()
"""


def test_equal_addresses_in_two_namespaces_do_not_mix(hosts):
    shape = Shape()
    with ExitStack() as stack:
        others = stack.enter_context(two_hosts())
        for pair in (hosts, others):
            stack.enter_context(lab.server(pair, shape))
        trace = stack.enter_context(tracing("--port", "7000"))
        clients = [
            stack.enter_context(
                python(pair.client, BOUND.format(nodelay=nodelay, address=pair.server_address(4)))
            )
            for pair, nodelay in ((hosts, 0), (others, 1))
        ]
        assert [client.wait(20) for client in clients] == [0, 0]
        events = trace.end(hosts.client, hosts.server, others.client, others.server)
    stalls = of(events, "held") + of(events, "ack", outcome="fired")
    assert {event["netns"] for event in stalls} == {hosts.client.inode, hosts.server.inode}
    ends = {(event["local"], event["remote"], event["netns"]) for event in events}
    assert len({netns for *_, netns in ends}) == 4
    assert len({(local, remote) for local, remote, _ in ends}) == 2


ABORTING = """
import socket, struct
print('ready', flush=True)
c = socket.create_connection(('{address}', 7000))
c.sendall(b'q' * 100)
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
c.sendall(b'q' * 200)
c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
c.close()
"""


def test_a_connection_that_ends_is_told_with_what_it_never_sent(hosts):
    """A client that resets it while TCP_CORK still holds a write: the hold has no other end."""
    with lab.server(hosts, Shape()), tracing("--port", "7000", "--acks") as trace:
        with python(hosts.client, ABORTING.format(address=hosts.server_address(4))) as client:
            assert client.wait(20) == 0
        events = trace.end(hosts.client, hosts.server)
    ends = {event["netns"]: event["unsent_bytes"] for event in of(events, "end")}
    assert ends == {hosts.client.inode: 200, hosts.server.inode: 0}
    assert len(of(events, "end")) == 2
    assert not of(events, "held")


def test_without_acks_only_an_end_of_something_told_is_told(hosts):
    events = traced(hosts, Shape(nagle=False, rounds=5, reconnect=True), "--slow", "1s")
    assert {event["flow"] for event in of(events, "end")} <= {
        event["flow"] for event in events if event["event"] != "end"
    }
