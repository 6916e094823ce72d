"""The ACK model against this kernel: median time of a round within one jiffy, and the kernel's own counters of probes."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from tests.kernel.test_lab_wan import kernel_counter, rounds

from ackward.kernel.settings import ticks_per_second
from ackward.lab import run as lab
from ackward.lab.scenarios import named
from ackward.lab.wan import Wan
from ackward.model.prediction import AckSettings
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
def test_the_model_is_within_a_jiffy_of_the_kernel(case):
    scenario, changed = CASES[case]
    scenario = replace(scenario, shape=replace(scenario.shape, rounds=min(scenario.shape.rounds, ROUNDS)))
    with lab.hosts_of(scenario) as hosts:
        measured = rounds(hosts, scenario.shape)
        counters = ("TcpExtTCPLossProbes", "TcpExtTCPDSACKRecv", "TcpExtTCPTimeouts")
        probes, repeated, timeouts = (kernel_counter(hosts.client, name) for name in counters)
    given = {"rtt_ns": 50_000, "rounds": scenario.shape.rounds, "tick_ns": JIFFY_NS} | changed
    prediction = predict(AckSettings(**given))

    predicted = [each.elapsed_ns / MS for each in prediction.rounds]
    off = statistics.median(measured) - statistics.median(predicted)
    assert abs(off) <= JIFFY_NS / MS + BUSY_MS, (measured, predicted)
    # A probe more or less: the phase of the first ticks is chance.
    assert abs(probes - prediction.probes) <= 2, (measured, predicted)
    assert abs(timeouts - prediction.timeouts) <= 2, (measured, predicted)
    needless = prediction.spurious_probes + prediction.timeouts
    assert abs(repeated - needless) <= 2, (measured, predicted)
