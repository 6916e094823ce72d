"""A receiver that holds its ACKs before a real sender: what the kernel counts is what the diagnosis says.

Laws: no probe is useful whose segment had arrived; none is spurious whose segment the link lost; what the sender's
host alone tells is what both tell. All probes together are the namespace's TCPLossProbes, those that a D-SACK calls
needless TCPDSACKRecv, those that the kernel took for repairs TCPLossProbeRecovery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from benchmarks.ack_holding import counters, fed, measure

from ackward.capture.live import LiveCapture, Scope
from ackward.diagnosis.attribution import Attribution
from ackward.diagnosis.diagnose import diagnose
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.probing import Sign, Verdict, probes
from ackward.errors import Unavailable, UsageError
from ackward.kernel.namespaces import Namespace
from ackward.lab import run as lab
from ackward.lab.feed import Feed
from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.lab.scenarios import named, tail_loss
from ackward.lab.scenarios.ack_holding import FULL, SCENARIO
from ackward.lab.topology import TwoHosts
from ackward.lab.wan import Loss
from ackward.model.causes import Cause, End
from ackward.model.report import Report
from ackward.model.segments import Kind, Recording, Vantage

PORT = 7461  # its own: other labs of this machine are seen by port too
HELD = SCENARIO.with_settings(["threshold=16", "delay=40ms", "cc=cubic", f"port={PORT}"])
#: Messages of five segments: fewer than the threshold, so each draws a probe.
FEED = Feed(connections=8, messages=8, interval=70.0, port=PORT)
#: Every second connection loses the last segment of every third message; the others lose nothing.
TAILS = Loss("data", at=4 * FULL, length=FULL, period=3 * FEED.size, every=2)


@dataclass(frozen=True)
class Seen:
    """What the sender's kernel counted, and what was made of the packets."""

    counted: Counter[str]
    verdicts: Counter[Verdict]
    signs: Counter[Sign]
    report: Report
    attribution: Attribution

    @property
    def connections(self) -> list[Timeline]:
        """Each by itself, in the order of their SYNs."""
        found = [
            self.attribution.stretch(flow, flow + 1).timeline
            for flow in range(len(self.attribution.traffic.flows))
        ]
        return sorted(found, key=lambda timeline: int(timeline.time.min()))


@dataclass(frozen=True)
class Run:
    """One run, watched at both hosts."""

    hosts: TwoHosts
    counted: Counter[str]
    recording: Recording
    sends: End

    def seen_from(self, *hosts: Namespace) -> Seen:
        """What these hosts tell."""
        inodes = {host.inode for host in hosts}
        sockets = tuple(end for end in self.recording.sockets if end.owner.netns in inodes)
        seen = diagnose(replace(self.recording, sockets=sockets))
        verdicts: Counter[Verdict] = Counter()
        signs: Counter[Sign] = Counter()
        for near in seen.attribution.stretches():
            found = probes(near.timeline)
            verdicts.update(map(Verdict, found.verdict.tolist()))
            signs.update(map(Sign, found.sign[found.repeats].tolist()))
        return Seen(self.counted, verdicts, signs, seen.report, seen.attribution)

    @property
    def both(self) -> Seen:
        """What both tell."""
        return self.seen_from(self.hosts.client, self.hosts.server)

    @property
    def sender(self) -> Seen:
        """What the sender's host alone tells."""
        return self.seen_from(self.hosts.server if self.sends is End.SERVER else self.hosts.client)


def ran(scenario: Scenario, carry: Callable[[TwoHosts, LiveCapture], object], sends: End = End.SERVER) -> Run:
    with lab.hosts_of(scenario) as hosts:
        sender = hosts.server if sends is End.SERVER else hosts.client
        before = Counter(counters(sender))
        with LiveCapture(Scope(port=scenario.shape.port, slow_ns=0), (hosts.client, hosts.server)) as capture:
            carry(hosts, capture)
            recording = capture.finish()
        counted = Counter(counters(sender))
        counted.subtract(before)
    return Run(hosts, counted, recording, sends)


def loaded(scenario: Scenario, sends: End = End.SERVER) -> Run:
    def carry(hosts: TwoHosts, capture: LiveCapture) -> None:
        with lab.server(hosts, scenario.shape):
            lab.load("load", hosts, scenario.shape, capture, lambda _: None)

    return ran(scenario, carry, sends)


@pytest.fixture(scope="module")
def half_lossy() -> Run:
    """Nearly every message draws a probe, which most connections did not need."""
    assert HELD.wan
    to_client = replace(HELD.wan.to_client, losses=(TAILS,))
    scenario = replace(HELD, wan=replace(HELD.wan, to_client=to_client))
    return ran(scenario, lambda hosts, _: fed(hosts, FEED))


@pytest.mark.parametrize("view", ["sender", "both"])
def test_each_probe_is_what_the_kernel_took_it_for_from_the_senders_host_alone_too(half_lossy, view):
    seen: Seen = getattr(half_lossy, view)
    spurious, useful = seen.verdicts[Verdict.SPURIOUS], seen.verdicts[Verdict.USEFUL]
    assert seen.verdicts.total() == seen.counted["TcpExt.TCPLossProbes"]
    assert spurious == seen.counted["TcpExt.TCPDSACKRecv"] >= FEED.connections * FEED.messages // 4
    assert useful == seen.counted["TcpExt.TCPLossProbeRecovery"] >= 4
    assert seen.verdicts[Verdict.UNDECIDED] == 0
    assert seen.signs[Sign.DSACK if view == "sender" else Sign.ARRIVAL] >= spurious


@pytest.mark.parametrize("view", ["sender", "both"])
def test_each_probe_of_a_lost_segment_is_useful_and_each_other_one_spurious(half_lossy, view):
    """By what the link lost, segment by segment; half of the connections lose nothing."""
    seen: Seen = getattr(half_lossy, view)
    assert len(seen.connections) == FEED.connections
    said: Counter[tuple[bool, Verdict]] = Counter()
    for number, timeline in enumerate(seen.connections):
        data = (timeline.segments["kind"] == Kind.SENT) & (timeline.segments["bytes"] > 0)
        first = int(timeline.seq64[data & timeline.at(Vantage.SERVER)].min())
        probed: set[int] = set()
        found = probes(timeline)
        found = found.chosen(found.repeats)
        for row, verdict in zip(found.row, found.verdict, strict=True):
            at = int(timeline.seq64[row]) - first
            harmed = number % TAILS.every == TAILS.every - 1 and at % TAILS.period == TAILS.at
            said[harmed and at not in probed, Verdict(verdict)] += 1
            probed.add(at)
    assert set(said) == {(True, Verdict.USEFUL), (False, Verdict.SPURIOUS)}, said


def test_a_needless_probe_is_never_called_useful_where_the_peer_sends_no_dsack():
    """A low rto_min under a delayed ACK: each probe repeats what had arrived, and nothing tells the sender so."""
    standoff = named("standoff").with_settings(
        ["pings=1", "latency=30", "nagle=off", "congestion=cubic", "rounds=8", f"port={PORT}"]
    )
    sysctls = {"net.ipv4.tcp_dsack": "0"}
    run = loaded(replace(standoff, sysctls=sysctls, client_metrics=("rto_min", "5ms")), End.CLIENT)
    assert run.counted["TcpExt.TCPDSACKRecv"] == 0
    assert run.sender.verdicts.total() == run.counted["TcpExt.TCPLossProbes"] >= 4
    assert Verdict.USEFUL not in run.sender.verdicts
    assert run.both.verdicts == {Verdict.SPURIOUS: run.counted["TcpExt.TCPLossProbes"]}


def test_threshold_16_is_named_with_its_timer():
    run = loaded(HELD.with_settings(["rounds=4"]))
    for seen in (run.sender, run.both):
        assert seen.verdicts.total() == seen.counted["TcpExt.TCPLossProbes"] >= 4
        assert seen.verdicts[Verdict.SPURIOUS] == seen.counted["TcpExt.TCPDSACKRecv"]
        assert (seen.verdicts[Verdict.USEFUL], seen.counted["TcpExt.TCPLossProbeRecovery"]) == (0, 0)
        held = next(finding for finding in seen.report.findings if finding.cause is Cause.ACK_HOLDING)
        assert (held.holding_end, held.delaying_end) == (End.SERVER, End.CLIENT)
        assert "ACK leaves after 16 segments" in held.why
        assert f"{seen.verdicts[Verdict.SPURIOUS]} spurious" in held.why


def test_threshold_0_draws_none():
    seen = loaded(SCENARIO.with_settings(["threshold=0", "rounds=3", "rest=60", f"port={PORT}"])).both
    assert seen.verdicts == Counter()
    assert (seen.counted["TcpExt.TCPLossProbes"], seen.counted["Tcp.RetransSegs"]) == (0, 0)
    assert not {Cause.ACK_HOLDING, Cause.TAIL_LOSS_PROBE} & {
        finding.cause for finding in seen.report.findings
    }


def test_a_probe_of_what_was_lost_is_useful_from_the_senders_host_alone_too():
    run = loaded(tail_loss.SCENARIO.with_settings(["rounds=2", f"port={PORT}"]))
    for seen in (run.sender, run.both):
        assert seen.verdicts[Verdict.USEFUL] == seen.counted["TcpExt.TCPLossProbes"] >= 1
        assert seen.verdicts.total() == seen.verdicts[Verdict.USEFUL]
    assert run.sender.signs == {Sign.HOLE: run.sender.verdicts.total()}


def test_without_dsack_the_kernel_takes_needless_probes_for_losses():
    row = measure("cubic", "off", 16, messages=4)
    assert row.told == 0
    assert row.again > 0
    assert row.cuts > 0
    assert row.cwnd_least < 10


def test_a_congestion_control_that_the_kernel_lacks_is_named_with_those_that_it_has():
    scenario = SCENARIO.with_settings(["cc=nosuch"])
    with (
        pytest.raises(Unavailable, match=r"no congestion control 'nosuch'.*name one of .*cubic"),
        lab.hosts_of(scenario),
    ):
        pass


def test_a_setting_that_it_does_not_know_is_answered_with_all_that_it_does():
    with pytest.raises(UsageError, match=r"use key=value with one of threshold, delay, dsack, pings"):
        SCENARIO.with_settings(["flows=3"])
    with pytest.raises(UsageError, match="give a number from 1 to 100000"):
        SCENARIO.with_settings(["rounds=0"])


@pytest.mark.parametrize(
    "setting", ["threshold=-1", "threshold=65536", "threshold=x", "delay=0", "delay=4s", "dsack=2"]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(UsageError, match=setting.partition("=")[0]):
        SCENARIO.with_settings([setting])


def test_the_two_halves_of_the_load_know_nothing_of_the_link():
    changed = SCENARIO.with_settings(["threshold=8", "delay=25", "cc=reno"])
    assert Shape.from_json(changed.shape.to_json()).congestion == "reno"
    assert changed.wan is not None
    assert (changed.wan.to_server.thin, changed.wan.to_server.thin_hold) == (8, 25.0)
    assert SCENARIO.with_settings(["threshold=1"]).wan == SCENARIO.with_settings(["threshold=0"]).wan
