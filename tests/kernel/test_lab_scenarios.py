"""Every scenario stalls as it says, and its calm twin does not; a corpus holds what its labels say."""

from __future__ import annotations

import shutil
import statistics
import sys
from dataclasses import replace

import pytest
from tests.kernel.test_lab_wan import rounds

from ackward.errors import Unavailable
from ackward.lab import run as lab
from ackward.lab.corpus import Labels, make_corpus
from ackward.lab.scenarios import ALL, named
from ackward.model.causes import STALLS, Cause, End

CONTROLS_WITHOUT_DELAY = {"healthy"}


@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)
def test_a_scenario_stalls_and_its_calm_twin_does_not(scenario):
    """Measured by the client alone: at least one round exceeds the calm median by the scenario's margin."""
    calm, few = scenario.calmed(), 3 + scenario.warmup
    with lab.hosts_of(calm) as hosts:
        calm_rounds = rounds(hosts, replace(calm.shape, rounds=few))[scenario.warmup :]
    with lab.hosts_of(scenario) as hosts:
        times = rounds(hosts, replace(scenario.shape, rounds=few))[scenario.warmup :]
    baseline = statistics.median(calm_rounds)
    slow = [time for time in times if time > baseline + scenario.margin]
    if scenario.name in CONTROLS_WITHOUT_DELAY:
        assert not slow
    else:
        assert slow, (calm_rounds, times)


def test_names_are_unique_and_every_stall_that_a_network_can_show_has_a_scenario():
    assert len({scenario.name for scenario in ALL}) == len(ALL)
    # host-queue: the lab's hosts share one fast processor, and their queues stay empty.
    assert {scenario.cause for scenario in ALL} >= STALLS - {Cause.HOST_QUEUE}


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="probe failed: tcpdump is not installed")
@pytest.mark.skipif(not shutil.which("ethtool"), reason="probe failed: ethtool is not installed")
def test_a_corpus_is_small_and_labelled(tmp_path):
    made = make_corpus(tmp_path, ["standoff", "tail-loss"])
    assert [path.name for path in made] == [
        "standoff.labels.json",
        "standoff-segmented.labels.json",
        "tail-loss.labels.json",
        "tail-loss-segmented.labels.json",
    ]
    for path in made:
        labels = Labels.model_validate_json(path.read_text())
        assert any(round_.stalled for round_ in labels.rounds)
        assert all(round_.lost_ns > 15e6 for round_ in labels.rounds if round_.stalled)
        for end in End:
            capture = path.with_name(path.name.replace("labels.json", f"{end}.pcap"))
            content = capture.read_bytes()
            assert int.from_bytes(content[:4], sys.byteorder) == 0xA1B23C4D  # nanoseconds
            assert 2_000 < len(content) < 300_000


def test_a_corpus_without_tcpdump_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"tcpdump is not installed.*apt-get install tcpdump"):
        make_corpus(tmp_path / "corpus", ["standoff"])
    assert not (tmp_path / "corpus").exists()


def test_a_sysctl_that_the_kernel_lacks_is_named_with_a_scenario_that_needs_none():
    assert not named("standoff").sysctls
    lacking = replace(named("tail-loss"), sysctls={"net.ipv4.tcp_no_such_thing": "1"})
    with (
        pytest.raises(Unavailable, match=r"net\.ipv4\.tcp_no_such_thing.*`ackward lab run standoff`"),
        lab.hosts_of(lacking),
    ):
        pass


def test_haproxy_missing_is_named(monkeypatch, tmp_path):
    scenario = named("haproxy")
    with lab.hosts_of(scenario) as hosts:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(Unavailable, match="haproxy is not installed"), lab.server(hosts, scenario.shape):
            pass
        monkeypatch.undo()
