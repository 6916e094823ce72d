"""A receiver that holds its ACKs before a real sender: what the kernel counts is what the diagnosis says.

Laws: the link of ``ack-holding`` loses nothing, so no probe there is useful; that of ``tail-loss`` loses what is
probed, so none is spurious. All probes together are the namespace's TCPLossProbes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from benchmarks.ack_holding import counters, measure

from ackward.capture.live import LiveCapture, Scope
from ackward.diagnosis.diagnose import diagnose
from ackward.diagnosis.probing import Verdict, probes
from ackward.errors import UsageError
from ackward.lab import run as lab
from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.lab.scenarios import tail_loss
from ackward.lab.scenarios.ack_holding import SCENARIO
from ackward.model.causes import Cause, End
from ackward.model.report import Report

PORT = "port=7461"  # its own: other labs of this machine are seen by port too


@dataclass(frozen=True)
class Seen:
    """What the sender's kernel counted, and what was made of the packets."""

    counted: Counter[str]
    verdicts: Counter[Verdict]
    report: Report


def watched(scenario: Scenario) -> Seen:
    with lab.hosts_of(scenario) as hosts, lab.server(hosts, scenario.shape):
        before = Counter(counters(hosts.server))
        with LiveCapture(Scope(port=scenario.shape.port, slow_ns=0), (hosts.client, hosts.server)) as capture:
            lab.load("load", hosts, scenario.shape, capture, lambda _: None)
            recording = capture.finish()
        counted = Counter(counters(hosts.server))
        counted.subtract(before)
    seen = diagnose(recording)
    verdicts: Counter[Verdict] = Counter()
    for near in seen.attribution.stretches():
        verdicts.update(map(Verdict, probes(near.timeline).verdict.tolist()))
    return Seen(counted, verdicts, seen.report)


def test_threshold_16_draws_needless_probes_and_the_diagnosis_counts_them_as_the_kernel_does():
    seen = watched(SCENARIO.with_settings(["threshold=16", "delay=40ms", "cc=cubic", "rounds=8", PORT]))
    spurious = seen.verdicts[Verdict.SPURIOUS]
    assert seen.verdicts.total() == seen.counted["TcpExt.TCPLossProbes"]
    assert spurious == seen.counted["TcpExt.TCPDSACKRecv"] == seen.counted["Tcp.RetransSegs"]
    assert spurious >= 1
    assert (seen.verdicts[Verdict.USEFUL], seen.counted["TcpExt.TCPLossProbeRecovery"]) == (0, 0)

    held = next(finding for finding in seen.report.findings if finding.cause is Cause.ACK_HOLDING)
    assert (held.holding_end, held.delaying_end) == (End.SERVER, End.CLIENT)
    assert "ACK leaves after 16 segments" in held.why
    assert f"{spurious} spurious" in held.why
    probed = next(finding for finding in seen.report.findings if finding.cause is Cause.TAIL_LOSS_PROBE)
    assert f"{spurious} spurious" in probed.why
    assert "EF_DYNAMIC_ACK_THRESH=0 AND EF_DELACK_THRESH=0" in str(probed.remedies)


def test_threshold_0_draws_none():
    seen = watched(SCENARIO.with_settings(["threshold=0", "rounds=3", "rest=60", PORT]))
    assert seen.verdicts == Counter()
    assert (seen.counted["TcpExt.TCPLossProbes"], seen.counted["Tcp.RetransSegs"]) == (0, 0)
    assert not {Cause.ACK_HOLDING, Cause.TAIL_LOSS_PROBE} & {
        finding.cause for finding in seen.report.findings
    }


def test_a_probe_of_what_was_lost_is_never_spurious():
    scenario = tail_loss.SCENARIO.with_settings(["rounds=2", PORT])
    seen = watched(scenario)
    assert seen.verdicts.total() == seen.counted["TcpExt.TCPLossProbes"] >= 1
    assert seen.verdicts[Verdict.SPURIOUS] == 0
    assert seen.verdicts[Verdict.USEFUL] + seen.verdicts[Verdict.UNDECIDED] == seen.verdicts.total()


def test_without_dsack_the_kernel_takes_needless_probes_for_losses():
    row = measure("cubic", "off", 16, messages=4)
    assert row.told == 0
    assert row.again > 0
    assert row.cuts > 0
    assert row.cwnd_least < 10


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
