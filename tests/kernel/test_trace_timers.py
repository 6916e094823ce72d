"""Timers in the trace and in the recorder: told when the kernel counts them, and at no other time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import repeat

import numpy as np
import pytest
from tests.kernel.lab_hosts import python
from tests.kernel.trace_hosts import ASKING, counter, of, run_load, traced, tracing

from ackward.capture.live import LiveCapture, Scope
from ackward.lab import run as lab
from ackward.lab.peer import Shape
from ackward.lab.scenarios import named
from ackward.model.segments import Kind

MS = 1_000_000

#: A server whose recv() waits for its page, with the socket locked, until after the delayed-ACK timer has gone off.
LOCKED = """
import ctypes, fcntl, mmap, platform, select, socket, struct, threading, time
USERFAULTFD = {'x86_64': 323, 'aarch64': 282}
page, faults = mmap.mmap(-1, mmap.PAGESIZE), ctypes.CDLL(None).syscall(USERFAULTFD[platform.machine()], 0)
start = ctypes.addressof(ctypes.c_char.from_buffer(page))
fcntl.ioctl(faults, 0xC018AA3F, bytearray(struct.pack('QQQ', 0xAA, 0, 0)))  # UFFDIO_API
fcntl.ioctl(faults, 0xC020AA00, bytearray(struct.pack('QQQQ', start, mmap.PAGESIZE, 1, 0)))  # UFFDIO_REGISTER, missing
def give():
    assert select.select([faults], [], [], 10)[0]
    time.sleep(0.1)
    fcntl.ioctl(faults, 0xC020AA04, bytearray(struct.pack('QQQQ', start, mmap.PAGESIZE, 0, 0)))  # UFFDIO_ZEROPAGE
s = socket.create_server(('0.0.0.0', 7000))
print('ready', flush=True)
c, _ = s.accept()
assert c.recv(1)
c.sendall(b'x')
assert select.select([c], [], [], 10)[0]
threading.Thread(target=give).start()
assert c.recv_into(page) == 1
time.sleep(0.05)
c.sendall(b'x')
assert not c.recv(1)
"""


def test_a_timer_that_found_its_socket_in_use_is_told_like_any_other(hosts):
    """Its handler runs when the program lets go (TcpExtDelayedACKLocked, tcp_release_cb)."""
    with python(hosts.server, LOCKED), tracing("--netns", hosts.server.name) as trace:
        with python(hosts.client, ASKING.format(address=hosts.server_address(4), rounds=2)) as client:
            assert client.wait(20) == 0
        events = trace.end(hosts.server)
    assert counter(hosts.server, "DelayedACKLocked") >= 1
    [ack] = of(events, "ack", outcome="fired")
    assert 100 * MS <= ack["delay_ns"] < 145 * MS
    assert [event["because"] for event in of(events, "mode")].count("delayed-ACK timer") == 1


def test_fired_timers_are_told_as_often_as_the_kernel_counts_them(hosts):
    """Many at once: timers of one tick run in a row, in whatever process the tick has interrupted."""
    shapes = [Shape(port=port, rounds=25) for port in range(7000, 7012)]
    with ExitStack() as stack:
        for shape in shapes:
            stack.enter_context(lab.server(hosts, shape))
        recorder = stack.enter_context(LiveCapture(Scope(netns=hosts.server, slow_ns=0), [hosts.server]))
        trace = stack.enter_context(tracing("--netns", hosts.server.name))
        with ThreadPoolExecutor(len(shapes)) as loads:
            list(loads.map(run_load, repeat(hosts), shapes))
        events = trace.end(hosts.server)
        recorded = recorder.finish().segments["kind"]
    told = of(events, "ack", outcome="fired")
    assert len(told) == counter(hosts.server, "DelayedACKs") >= len(shapes) * 20
    assert np.count_nonzero(recorded == Kind.ACK_TIMER) == len(told)
    assert {event["mode"]["pingpong"] for event in told} == {0}


#: Segments without data that no timer sends: keepalive probes, their answers and FINs, long after the timer ran out.
RESTS = """
import socket, time
s = socket.create_server(('0.0.0.0', 7000))
print('ready', flush=True)
c, _ = s.accept()
for _ in range(6):
    assert c.recv(1)
    time.sleep(0.012)
    c.sendall(b'x')
assert not c.recv(1)
"""
IS_KEPT_ALIVE = """
import socket, time
print('ready', flush=True)
c = socket.create_connection(('{address}', 7000))
c.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
c.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
for _ in range(6):
    c.sendall(b'q'); assert c.recv(1)
time.sleep(2.2)
c.close()
"""
#: A FIN without data, before any data: its ACK is delayed by no time at all, and sent by the timer.
LINGERS = """
import socket, time
s = socket.create_server(('0.0.0.0', 7000))
print('ready', flush=True)
for _ in range(5):
    with s.accept()[0] as c:
        assert not c.recv(1)
        time.sleep(0.1)
"""
HALF_CLOSES = """
import socket, time
print('ready', flush=True)
for _ in range(5):
    with socket.create_connection(('{address}', 7000)) as c:
        time.sleep(0.02)
        c.shutdown(socket.SHUT_WR)
        assert not c.recv(1)
"""


@pytest.mark.parametrize(("serves", "asks", "least"), [(RESTS, IS_KEPT_ALIVE, 0), (LINGERS, HALF_CLOSES, 5)])
def test_what_no_timer_sent_is_told_as_no_timers_and_a_fin_s_ack_is(hosts, serves, asks, least):
    with (
        python(hosts.server, serves),
        LiveCapture(Scope(port=7000, slow_ns=0), [hosts.client, hosts.server]) as recorder,
        tracing("--port", "7000", "--acks") as trace,
    ):
        with python(hosts.client, asks.format(address=hosts.server_address(4))) as client:
            assert client.wait(20) == 0
        events = trace.end(hosts.client, hosts.server)
        recorded = recorder.finish().segments["kind"]
    counted = sum(counter(host, "DelayedACKs") for host in (hosts.client, hosts.server))
    assert counted >= least
    assert len(of(events, "ack", outcome="fired")) == counted
    # Without data there is no exchange to record.
    assert not len(recorded) or np.count_nonzero(recorded == Kind.ACK_TIMER) == counted


def test_tail_loss_probes_are_told_as_often_as_the_kernel_counts_them():
    scenario = named("tail-loss").with_settings(["rounds=4"])
    with lab.hosts_of(scenario) as hosts:
        events = traced(hosts, scenario.shape)
        probes = of(events, "probe", probe="tail-loss-probe", netns=hosts.server.inode)
        assert len(probes) == counter(hosts.server, "TCPLossProbes") >= 2
        assert all(event["bytes"] == 1448 for event in probes)
        assert of(events, "probe", probe="fast-retransmit", netns=hosts.server.inode)


def test_zero_window_probes_and_timeouts_are_told():
    """A reader that rests for longer than the persist timer; an answer's end that is lost without probes allowed."""
    scenario = named("zero-window").with_settings(["rounds=1", "read_pause=500"])
    with lab.hosts_of(scenario) as hosts:
        events = traced(hosts, scenario.shape)
        probes = of(events, "probe", probe="zero-window-probe", netns=hosts.server.inode)
        assert len(probes) == counter(hosts.server, "TCPWinProbe") >= 1
    scenario = named("retransmission-timeout").with_settings(["rounds=2"])
    with lab.hosts_of(scenario) as hosts:
        events = traced(hosts, scenario.shape)
        timeouts = sum(counter(host, "TCPTimeouts") for host in (hosts.client, hosts.server))
        told = of(events, "probe", probe="retransmission-timeout")
        assert len({(event["flow"], event["time_ns"]) for event in told}) >= timeouts >= 1
