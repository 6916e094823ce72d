"""One run of the lab, watched live and captured at the same time: both views agree on cause, count and lost time.

Where they do not, because only the kernel knows, `docs/captures.md` says so: those scenarios are not in AGREE.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tests.steady import steady

from ackward.capture.live import LiveCapture, Scope
from ackward.capture.reading import read_captures
from ackward.capture.sources import Source
from ackward.diagnosis.diagnose import diagnose
from ackward.kernel.namespaces import Namespace
from ackward.lab import corpus
from ackward.lab import run as lab
from ackward.lab.scenarios import named
from ackward.lab.tcpdump import tcpdump
from ackward.loop.analyzing import analyze
from ackward.model.causes import STALLS, Cause, End
from ackward.model.report import Report
from ackward.model.segments import Flag, Kind, Passage, Recording

pytestmark = pytest.mark.skipif(not shutil.which("tcpdump"), reason="probe failed: tcpdump is not installed")

MS = 1_000_000
PORT = 7391  # no other lab's, should one run on this machine
VIEWS = ("client", "server", "both")


@dataclass(frozen=True)
class Run:
    """What was recorded and what was captured, by view; and the cause that this view can tell."""

    name: str
    cause: dict[str, Cause]
    live: dict[str, Report]
    captured: dict[str, Report]
    told: dict[str, Recording]
    files: dict[str, Path]


AGREE = (
    "standoff", "response-standoff", "haproxy", "nagle", "delayed-ack", "tail-loss",
    "tail-loss-without-probe", "retransmission-timeout", "fast-retransmit", "slow-start", "healthy", "late-writer",
    "late-writer-nagle", "slow-reader", "slow-server",
)  # fmt: skip


@pytest.fixture(scope="module", params=AGREE)
def run(request, tmp_path_factory) -> Run:
    return recorded(request.param, tmp_path_factory.mktemp(request.param))


def recorded(name: str, directory: Path) -> Run:
    """A few rounds, recorded by BPF and by tcpdump in both hosts at once.

    On "any" tcpdump tells which packets left and which arrived: on one machine the hosts are too near to tell by time.
    """
    scenario = named(name)
    scenario = scenario.with_settings([f"port={PORT}", f"rounds={4 + scenario.warmup}"])
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
        {
            "both": scenario.cause,
            **{end: scenario.seen_from.get(End(end), scenario.cause) for end in watched},
        },
        {view: diagnose(told_by(recording, [watched[end] for end in ends[view]])).report for view in VIEWS},
        {view: analyze([files[end] for end in ends[view]]).report for view in VIEWS},
        {end: told_by(recording, [host]) for end, host in watched.items()},
        files,
    )


def once_more(run: Run) -> Run:
    return recorded(run.name, Path(tempfile.mkdtemp(dir=run.files["client"].parent)))


#: Whoever else wants the processor then delays one view's clock or the other's, or takes a packet from tcpdump.
STEADY = steady("run", once_more)


def told_by(recording: Recording, hosts: Sequence[Namespace]) -> Recording:
    """What the sockets of these hosts tell."""
    inodes = {host.inode for host in hosts}
    return replace(recording, sockets=tuple(end for end in recording.sockets if end.owner.netns in inodes))


def near(ours: int, theirs: int, share: float = 0.02) -> bool:
    """To 1 ms or a share, 2 % unless told otherwise."""
    return abs(ours - theirs) <= max(MS, share * max(ours, theirs))


@pytest.mark.parametrize("end", ["client", "server"])
@STEADY
def test_what_a_received_segment_says_is_read_alike(run, end):
    """Window and SACK blocks of the segments that arrived without data, which no offload merges."""
    flows = {socket.flow for socket in run.told[end].sockets}
    live = run.told[end].segments
    captured = read_captures([Source(end, run.files[end])]).segments
    live = live[(live["kind"] == Kind.RECEIVED) & np.isin(live["flow"], list(flows))]
    captured = captured[(captured["passage"] & Passage.ARRIVED) > 0]
    columns = ["seq", "ack", "window", "sack_left", "sack_right", "dsack"]
    bare = [rows[(rows["bytes"] == 0) & (rows["tcp_flags"] == Flag.ACK)] for rows in (live, captured)]
    # The ACK that ends the handshake comes before there is a socket of the server's.
    said = [Counter(map(tuple, rows[columns].tolist())) for rows in bare]
    assert len(bare[0]) > 0
    assert said[0] <= said[1]
    assert (said[1] - said[0]).total() <= len(flows)
    if run.name == "tail-loss" and end == "server":
        assert bare[0]["sack_right"].any()


@pytest.mark.parametrize("view", VIEWS)
@STEADY
def test_findings_agree(run, view):
    """Cause, ends, count and lost time. Live may have `observed` what a capture can only infer."""
    live, captured = run.live[view].findings, run.captured[view].findings
    assert [(found.cause, found.holding_end, found.delaying_end, found.exchanges) for found in captured] == [
        (found.cause, found.holding_end, found.delaying_end, found.exchanges) for found in live
    ]
    assert live or run.cause[view] not in STALLS
    assert not live or run.cause["both"] in STALLS
    assert [[remedy.name for remedy in found.remedies] for found in captured] == [
        [remedy.name for remedy in found.remedies] for found in live
    ]
    # Between the segments of one flight only the kernel knows what the next one waited for.
    share = 0.06 if run.name == "slow-start" else 0.02
    for ours, theirs in zip(captured, live, strict=True):
        assert near(ours.lost_ns.total, theirs.lost_ns.total, share)
        assert near(ours.lost_ns.p50, theirs.lost_ns.p50, share)


@pytest.mark.parametrize("view", VIEWS)
@STEADY
def test_the_time_of_every_cause_agrees(run, view):
    live, captured = run.live[view], run.captured[view]
    assert captured.exchanges == live.exchanges
    assert near(captured.elapsed_ns, live.elapsed_ns)
    for cause in Cause:
        if run.name == "slow-start" and cause is not Cause.HANDSHAKE:
            continue
        assert near(spent(captured, cause), spent(live, cause)), cause


def spent(report: Report, cause: Cause) -> int:
    return report.causes[cause].ns if cause in report.causes else 0
