"""The ACK model against this kernel: the median time of a round, and the kernel's own counters of probes.

Medians are no more than a jiffy apart, and what two processes need to take turns on a busy machine. On a quiet one
``python -m benchmarks.prediction`` compares more of them, and more closely.
"""

from __future__ import annotations

import fcntl
import socket
import statistics
import termios
import time
from dataclasses import replace

import pytest
from tests.kernel.test_lab_wan import kernel_counter, rounds

from ackward.kernel.namespaces import call_inside
from ackward.kernel.settings import ticks_per_second
from ackward.lab import run as lab
from ackward.lab.peer import Shape
from ackward.lab.scenarios import named
from ackward.lab.topology import TwoHosts, set_metrics, set_sysctls, two_hosts
from ackward.lab.wan import Line, Wan
from ackward.model.prediction import AckPrediction, AckSettings
from ackward.predict.acks import predict

MS = 1_000_000
ROUNDS = 12
#: One jiffy of this kernel.
JIFFY_NS = round(1e9 / (ticks_per_second() or 250))
#: What two processes need to take turns on a busy machine; the model has none of it.
BUSY_MS = 2.0

STANDOFF = named("standoff")
SHORT_RTO = {"client_metrics": ("rto_min", "5ms")}
ONE_WRITE = {"pings": 1, "latency": 30.0, "nagle": False, "congestion": "cubic"}
CASES = {
    "standoff": (STANDOFF, {}),
    "nodelay": (named("healthy"), {"nagle": False}),
    "quickack": (replace(STANDOFF, server_metrics=("quickack", "1")), {"quickack": True}),
    "three writes": (STANDOFF.with_settings(["pings=3"]), {"writes": (100, 200, 100)}),
    "answer in two writes": (
        STANDOFF.with_settings(["pings=1", "pongs=2", "server_nagle=on"]),
        {"writes": (100,), "answer": (100, 100), "server_nagle": True},
    ),
    "pingpong threshold 3": (
        replace(STANDOFF, sysctls={"net.ipv4.tcp_pingpong_thresh": "3"}),
        {"pingpong_threshold": 3},
    ),
    "delayed ACK": (
        named("delayed-ack").with_settings(["rounds=5"]),
        {"writes": (2 * 1448,), "nagle": False, "cwnd": 1, "rest_ns": 300 * MS},
    ),
    "far": (replace(STANDOFF, wan=Wan.of(10)), {"rtt_ns": 20 * MS}),
    "far, quickack": (
        replace(STANDOFF, wan=Wan.of(10), server_metrics=("quickack", "1")),
        {"rtt_ns": 20 * MS, "quickack": True},
    ),
    "probe of held data": (replace(STANDOFF, **SHORT_RTO), {"rto_min_ns": 5 * MS}),
    "spurious probes": (
        replace(STANDOFF, shape=replace(STANDOFF.shape, **ONE_WRITE), **SHORT_RTO),
        {"writes": (100,), "nagle": False, "think_ns": 30 * MS, "rto_min_ns": 5 * MS},
    ),
    "spurious timeouts": (
        replace(STANDOFF, sysctls={"net.ipv4.tcp_early_retrans": "0"}, **SHORT_RTO),
        {"rto_min_ns": 5 * MS, "tlp": False},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rounds_and_probes_are_as_predicted(case):
    scenario, changed = CASES[case]
    scenario = replace(scenario, shape=replace(scenario.shape, rounds=min(scenario.shape.rounds, ROUNDS)))
    with lab.hosts_of(scenario) as hosts:
        measured = rounds(hosts, scenario.shape)
        counted = _counted(hosts)
    given = {"rtt_ns": 50_000, "rounds": scenario.shape.rounds, "tick_ns": JIFFY_NS} | changed
    _agree(measured, counted, predict(AckSettings(**given)))


FULL = 1448  # a full segment over the lab's veth
#: Eight full segments in one write, and nobody answers: `ackward predict acks --inflight 8`. Milliseconds each way.
#: Where a probe ends each round the lab has no such receiver: docs/predict.md.
ONE_WAY = {
    "held, far": (10.0, {"threshold": 16}),
    "held, no probes": (1.0, {"threshold": 16, "tlp": False}),
    "held, no probes, near": (0.1, {"threshold": 16, "tlp": False}),
    "forced": (1.0, {"threshold": 4}),
    "not held": (1.0, {}),
    "not held, far": (10.0, {}),
}


@pytest.mark.parametrize("case", ONE_WAY)
def test_one_way_rounds_and_probes_are_as_predicted(case):
    """The link holds the ACKs: its timer is exact, a kernel's rounds up to jiffies."""
    delay, changed = ONE_WAY[case]
    threshold = changed.get("threshold", 1)
    back = Line(delay, thin=threshold, thin_hold=40, thin_size=FULL)
    with two_hosts(Wan(Line(delay), back)) as hosts:
        set_metrics(hosts.server, hosts, ("quickack", "1") if threshold > 1 else ())
        set_sysctls(hosts.client, {"net.ipv4.tcp_early_retrans": "3" if changed.get("tlp", True) else "0"})
        shape = Shape(pings=1, sizes=(8 * FULL,), pongs=0)
        with lab.server(hosts, shape):
            measured = call_inside(hosts.client, _one_way, hosts.server_address(4), shape)
        counted = _counted(hosts)
    given = {"rtt_ns": round(2 * delay * MS), "rounds": ROUNDS, "tick_ns": JIFFY_NS} | changed
    _agree(measured, counted, predict(AckSettings(writes=(8 * FULL,), answer=(), **given)))


def _one_way(address: str, shape: Shape) -> list[float]:
    """Milliseconds from each write to the last ACK for it."""
    times = []
    with socket.create_connection((address, shape.port)) as end:
        for _ in range(ROUNDS):
            began = time.monotonic()
            end.sendall(b"Q" * shape.sizes[0])
            while fcntl.ioctl(end, termios.TIOCOUTQ, b"\0" * 4) != b"\0" * 4:  # SIOCOUTQ, tcp(7)
                time.sleep(0.0001)
            times.append((time.monotonic() - began) * 1000)
    return times


def _counted(hosts: TwoHosts) -> list[int]:
    counters = ("TcpExtTCPLossProbes", "TcpExtTCPDSACKRecv", "TcpExtTCPTimeouts")
    return [kernel_counter(hosts.client, name) for name in counters]


def _agree(measured: list[float], counted: list[int], prediction: AckPrediction) -> None:
    probes, repeated, timeouts = counted
    predicted = [each.elapsed_ns / MS for each in prediction.rounds]
    off = statistics.median(measured) - statistics.median(predicted)
    assert abs(off) <= JIFFY_NS / MS + BUSY_MS, (measured, predicted)
    # A probe more or less: the phase of the first ticks is chance.
    assert abs(probes - prediction.probes) <= 2, (measured, predicted)
    assert abs(timeouts - prediction.timeouts) <= 2, (measured, predicted)
    needless = prediction.spurious_probes + prediction.timeouts
    assert abs(repeated - needless) <= 2, (measured, predicted)
