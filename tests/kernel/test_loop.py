"""The main job on the real kernel: reproduce a stall, explain it live, fix it, prove it."""

from __future__ import annotations

import subprocess

import pytest
from tests.kernel.lab_hosts import ACKWARD, ackward, ackward_json
from tests.kernel.quickack_hosts import eventually

from ackward.kernel.namespaces import in_sight
from ackward.lab import run as lab
from ackward.lab.peer import Shape
from ackward.lab.scenarios import named
from ackward.model.causes import Cause, End, Grade
from ackward.model.scopes import PortScope
from ackward.model.verdict import Result
from ackward.remedies import load
from ackward.remedies.clearance import undo_all
from ackward.remedies.receipts import Receipts

ACK_CAUSES = {Cause.STANDOFF, Cause.NAGLE, Cause.DELAYED_ACK}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("view", ["client", "server", "both"])
def test_standoff_is_explained_fixed_and_proven(view, family):
    """At least 95 % of the lost time is `standoff`, observed, with the ends named right, from every side."""
    result = lab.run(named("standoff").with_settings([f"family={family}", "rounds=25"]), view=view)
    finding = result.findings[0]
    assert (finding.cause, finding.grade) == (Cause.STANDOFF, Grade.OBSERVED)
    assert (finding.holding_end, finding.delaying_end) == (End.CLIENT, End.SERVER)
    healthy = sum(
        result.causes[cause].ns
        for cause in result.causes
        if cause in (Cause.CLIENT, Cause.SERVER, Cause.NETWORK)
    )
    lost = result.elapsed_ns - healthy
    assert result.causes[Cause.STANDOFF].ns >= 0.95 * lost
    assert abs(result.elapsed_ns / result.exchanges - result.before.p50_ns) < 0.15 * result.before.p50_ns
    assert result.before.slow >= 20
    assert result.after.slow <= 1  # a busy machine may lose one round to its scheduler
    assert result.verdict is Result.IMPROVED
    assert not {finding.cause for finding in result.report_after.findings} & {
        Cause.STANDOFF,
        Cause.DELAYED_ACK,
    }


@pytest.mark.parametrize("view", ["client", "server", "both"])
@pytest.mark.parametrize("name", ["healthy", "slow-server", "late-writer"])
def test_controls_give_no_ack_finding(name, view):
    scenario = named(name).with_settings(["rounds=25"])
    result = lab.run(scenario, view=view)
    for report in (result, result.report_after):
        assert not ACK_CAUSES & {finding.cause for finding in report.findings}
        assert not ACK_CAUSES & set(report.causes)
    if name != "healthy":
        assert result.causes[scenario.cause].ns >= 0.9 * result.elapsed_ns
        assert result.verdict is Result.UNCHANGED


def test_the_fix_is_as_good_as_a_program_without_nagle(hosts):
    """p50 after the fix is at most 1.5x of `healthy` in the same run: one pair after the other, the median of nine."""
    fixed, healthy = Shape(rounds=60), Shape(rounds=60, nagle=False, port=7001)
    remedy, store = load("quickack"), Receipts()
    receipt = remedy.apply(remedy.plan(hosts.server, PortScope(port=fixed.port)), store)
    try:
        with lab.server(hosts, fixed), lab.server(hosts, healthy):
            ratios = [_p50(hosts, fixed) / _p50(hosts, healthy) for _ in range(9)]
    finally:
        assert remedy.undo(receipt, store).complete
    assert sorted(ratios)[4] <= 1.5, ratios


def _p50(hosts, shape):
    with lab.peer(hosts.client, "load", hosts.server_address(4), shape) as process:
        output, _ = process.communicate(timeout=60)
    rounds = [int(line) for line in output.split()]
    assert len(rounds) == shape.rounds
    return sorted(rounds)[len(rounds) // 2]


def test_the_command_line_runs_a_scenario(tmp_path):
    page = tmp_path / "standoff.html"
    result = ackward_json("lab", "run", "standoff", "--set", "rounds=10", "--report", str(page))
    assert result["scenario"] == "standoff"
    assert result["verdict"] == "improved"
    assert sum(cause["ns"] for cause in result["causes"].values()) == result["elapsed_ns"]
    assert {"p50_ns", "p99_ns", "rounds", "slow"} <= set(result["before"])
    text = page.read_text()
    assert "standoff" in text
    assert "<svg" in text


def test_a_scenario_whose_remedy_has_nothing_to_do_says_so():
    """Without Nagle there is no standoff, so the diagnosis names no remedy: exit 5, not a made-up success."""
    done = ackward("lab", "run", "standoff", "--set", "nagle=off", "--set", "rounds=5")
    assert done.returncode == 5
    assert "did not name quickack" in done.stderr


def test_what_a_killed_run_leaves_goes_with_undo_all(tmp_path):
    command = [ACKWARD, "lab", "run", "healthy", "--set", "rounds=100000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:

        def theirs():
            return [namespace for namespace in in_sight() if f"-{run.pid}-" in namespace.name]

        assert eventually(lambda: len(theirs()) == 2)
        left = theirs()
        assert undo_all(Receipts(tmp_path), left).swept == ()  # it lives
        run.kill()
    cleared = undo_all(Receipts(tmp_path), left)
    assert cleared.complete
    assert all(any(namespace.name in words for words in cleared.swept) for namespace in left)
    # Its two halves end by themselves.
    inodes = {namespace.inode for namespace in left}
    assert eventually(lambda: not inodes & {namespace.inode for namespace in in_sight()})


def test_the_lab_leaves_nothing_behind():
    before = {namespace.inode for namespace in in_sight()}
    lab.run(named("standoff").with_settings(["rounds=4"]))
    assert {namespace.inode for namespace in in_sight()} == before
    assert ackward("status").stdout.strip() == "No remedies in force."
