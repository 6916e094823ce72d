"""One run of the lab, watched live and captured at the same time: both views agree on cause, count and lost time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from ackward.capture.live import LiveCapture, Scope
from ackward.diagnosis.diagnose import diagnose
from ackward.kernel.namespaces import Namespace
from ackward.lab import corpus
from ackward.lab import run as lab
from ackward.lab.scenarios import named
from ackward.lab.tcpdump import tcpdump
from ackward.loop.analyzing import analyze
from ackward.model.causes import Cause
from ackward.model.report import Report
from ackward.model.segments import Recording

pytestmark = pytest.mark.skipif(not shutil.which("tcpdump"), reason="probe failed: tcpdump is not installed")

MS = 1_000_000
PORT = 7391  # no other lab's, should one run on this machine
VIEWS = ("client", "server", "both")


@dataclass(frozen=True)
class Run:
    """What was recorded and what was captured, by view."""

    name: str
    live: dict[str, Report]
    captured: dict[str, Report]


@pytest.fixture(scope="module", params=["standoff", "healthy", "tail-loss", "slow-server"])
def run(request, tmp_path_factory) -> Run:
    """A few rounds, recorded by BPF and by tcpdump in both hosts at once.

    On "any" tcpdump tells which packets left and which arrived: on one machine the hosts are too near to tell by time.
    """
    scenario = named(request.param)
    scenario = scenario.with_settings([f"port={PORT}", f"rounds={6 + scenario.warmup}"])
    directory = tmp_path_factory.mktemp(request.param)
    files = {end: directory / f"{end}.pcap" for end in ("client", "server")}
    with ExitStack() as stack:
        hosts = stack.enter_context(lab.hosts_of(scenario))
        stack.enter_context(lab.server(hosts, scenario.shape))
        watched = {"client": hosts.client, "server": hosts.server}
        scope = Scope(port=scenario.shape.port, slow_ns=0)
        live = stack.enter_context(LiveCapture(scope, watched.values()))
        with ExitStack() as capturing:
            for end, host in watched.items():
                capturing.enter_context(tcpdump(host, corpus.ANY, files[end], scenario.shape.port))
            lab.load("captured", hosts, scenario.shape, live, lambda _: None)
        recording = live.finish()
    ends = {"client": ["client"], "server": ["server"], "both": ["client", "server"]}
    return Run(
        scenario.name,
        {view: diagnose(told_by(recording, [watched[end] for end in ends[view]])).report for view in VIEWS},
        {view: analyze([files[end] for end in ends[view]]).report for view in VIEWS},
    )


def told_by(recording: Recording, hosts: Sequence[Namespace]) -> Recording:
    """What the sockets of these hosts tell."""
    inodes = {host.inode for host in hosts}
    return replace(recording, sockets=tuple(end for end in recording.sockets if end.owner.netns in inodes))


def near(ours: int, theirs: int) -> bool:
    """To 1 ms or 2 %."""
    return abs(ours - theirs) <= max(MS, 0.02 * max(ours, theirs))


@pytest.mark.parametrize("view", VIEWS)
def test_findings_agree(run, view):
    """Cause, ends, count and lost time. Live may have `observed` what a capture can only infer."""
    live, captured = run.live[view].findings, run.captured[view].findings
    assert [(found.cause, found.holding_end, found.delaying_end, found.exchanges) for found in captured] == [
        (found.cause, found.holding_end, found.delaying_end, found.exchanges) for found in live
    ]
    assert bool(live) == (run.name in ("standoff", "tail-loss"))
    for ours, theirs in zip(captured, live, strict=True):
        assert near(ours.lost_ns.total, theirs.lost_ns.total)
        assert near(ours.lost_ns.p50, theirs.lost_ns.p50)


@pytest.mark.parametrize("view", VIEWS)
def test_the_time_of_every_cause_agrees(run, view):
    live, captured = run.live[view], run.captured[view]
    assert captured.exchanges == live.exchanges
    assert near(captured.elapsed_ns, live.elapsed_ns)
    for cause in Cause:
        assert near(spent(captured, cause), spent(live, cause)), cause


def spent(report: Report, cause: Cause) -> int:
    return report.causes[cause].ns if cause in report.causes else 0
