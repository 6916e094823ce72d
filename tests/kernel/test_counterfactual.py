"""What the replay says of a stalled load against what the kernel does with the same load once the stall is gone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ackward.capture.live import LiveCapture, Scope
from ackward.diagnosis.diagnose import diagnose
from ackward.lab import run as lab
from ackward.lab.scenarios import named
from ackward.lab.scenarios.ack_holding import FULL
from ackward.model.causes import Cause

MS = 1_000_000
#: The issue's bound for a counterfactual: a tenth of the truth, or one millisecond.
SHARE, LEAST_NS = 0.1, MS
PORT = "port=7462"  # its own: other labs of this machine are seen by port too


def near(replayed: int, measured: int) -> bool:
    return abs(replayed - measured) <= max(SHARE * measured, LEAST_NS)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("standoff", ["rounds=12"]),
        # The program itself takes 16 ms between its writes, and only the first of them is not held.
        ("standoff", ["rounds=12", "pings=3", "pause=8"]),
        ("delayed-ack", ["rounds=3", "rest=250"]),
        ("slow-start", ["rounds=2"]),
        ("idle-restart", ["rounds=4", "rest=400"]),
    ],
)
def test_the_replay_is_what_the_remedy_brings(name, settings):
    """One run: the load, its diagnosis, the remedy that it names, and the load again."""
    scenario = named(name).with_settings([*settings, PORT])
    report = lab.run(scenario)
    finding = next(finding for finding in report.findings if finding.cause == scenario.cause)
    remedy = next(remedy for remedy in finding.remedies if remedy.name == scenario.remedy)
    assert finding.ladder
    assert finding.ladder.elapsed_ns > report.after.p50_ns + 20 * MS
    assert remedy.typical_ns is not None
    assert near(remedy.typical_ns, report.after.p50_ns), (remedy, report.after)


def test_an_ack_holding_is_as_long_as_what_threshold_0_at_the_receiver_brings():
    """Nothing is replayed for an advice: the stall's own length is the saving."""
    # 25 segments: ten, and far fewer than the next window has room for, so that either way it takes two flights.
    settings = ["rounds=5", "threshold=16", "delay=40ms", f"answer={25 * FULL}", PORT]
    held = named("ack-holding").with_settings(settings)
    report = lab.run(held)
    finding = next(finding for finding in report.findings if finding.cause is Cause.ACK_HOLDING)
    remedy = finding.remedies[0]
    assert (remedy.name, remedy.end) == ("advice", finding.delaying_end)
    assert remedy.saves_ns == finding.lost_ns.total
    cured = lab.run(held.with_settings(["threshold=0"]))
    assert report.before.p50_ns > cured.before.p50_ns + 20 * MS
    assert near(report.before.p50_ns - finding.lost_ns.p50, cured.before.p50_ns), (finding, cured.before)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("standoff", ["rounds=12"]),
        ("standoff", ["rounds=12", "pings=3", "pause=8"]),
        ("nagle", ["rounds=5"]),
    ],
)
def test_without_a_hold_it_is_what_the_same_program_gets_with_tcp_nodelay(name, settings):
    scenario = named(name).with_settings([*settings, PORT])
    quick = replace(scenario.shape, nagle=False)
    with lab.hosts_of(scenario) as hosts, lab.server(hosts, scenario.shape):
        watched = (hosts.client, hosts.server)
        with LiveCapture(Scope(port=scenario.shape.port, slow_ns=0), watched) as capture:
            lab.load("before", hosts, scenario.shape, capture, lambda _: None)
            report = diagnose(capture.finish()).report
            after = int(np.median(lab.load("after", hosts, quick, capture, lambda _: None)))
    finding = next(finding for finding in report.findings if finding.cause == scenario.cause)
    remedy = next(remedy for remedy in finding.remedies if remedy.name == "nodelay")
    assert finding.ladder
    assert finding.ladder.elapsed_ns > after + 20 * MS
    assert remedy.typical_ns is not None
    assert near(remedy.typical_ns, after), (remedy, after)
