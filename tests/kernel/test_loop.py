"""The main job on the real kernel: reproduce a stall, explain it live, fix it, prove it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from tests.kernel.lab_hosts import ACKWARD, ackward, ackward_json
from tests.polling import eventually

from ackward.kernel.namespaces import in_sight, resolve
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
    scenario = named(name).with_settings(["rounds=12"])
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


@pytest.mark.parametrize(
    ("arguments", "hosts", "programs"),
    [
        (["healthy", "--set", "rounds=100000"], 2, {"peer"}),
        (["ack-holding", "--set", "rounds=100000"], 3, {"delay_line", "peer"}),
        (["quickack-toggle"], 3, {"delay_line", "tcpdump"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_a_killed_run_leaves_goes_with_undo_all(tmp_path, monkeypatch, arguments, hosts, programs):
    """Its programs end by themselves: the kernel ends them with their starter."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = [ACKWARD, "lab", "run", *arguments]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path)}, **options) as run:

        def theirs():
            return [namespace for namespace in in_sight() if f"-{run.pid}-" in namespace.name]

        assert eventually(lambda: len(theirs()) == hosts)
        left = theirs()
        assert eventually(
            lambda: all(any(name in words for words in _inhabitants(left)) for name in programs)
        ), _inhabitants(left)
        assert undo_all(Receipts(tmp_path), left).swept == ()  # it lives
        run.kill()
    assert eventually(lambda: not _inhabitants(left)), _inhabitants(left)
    cleared = undo_all(Receipts(tmp_path), left)
    assert cleared.complete
    assert all(any(namespace.name in words for words in cleared.swept) for namespace in left)
    assert not {namespace.inode for namespace in left} & {namespace.inode for namespace in in_sight()}
    assert not list(tmp_path.glob("ackward-*"))


def _inhabitants(hosts) -> list[str]:
    """The command lines of the processes in these namespaces."""
    inodes, found = {host.inode for host in hosts}, []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (process / "ns/net").stat().st_ino in inodes:
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def test_undo_all_ends_what_runs_in_a_host_that_a_killed_run_left(tmp_path):
    """Also what its starter's end did not end, such as a server's own children."""
    script = """if True:
        import os, subprocess
        from ackward.kernel.namespaces import command_inside, temporary
        with temporary("left") as host:
            subprocess.Popen(command_inside(host, ["sleep", "1000"]), stdout=subprocess.DEVNULL)
            print(host.name, flush=True)
            os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    host = resolve(done.stdout.strip())
    assert eventually(lambda: _inhabitants([host]) == ["sleep 1000 "])
    assert undo_all(Receipts(tmp_path), [host]).complete
    assert not _inhabitants([host])
    assert host.inode not in {namespace.inode for namespace in in_sight()}


def test_undo_all_takes_the_directory_that_a_killed_run_left(tmp_path, monkeypatch):
    """And no other: not of one that lives, not with another name, not a link."""
    with subprocess.Popen(["true"]) as maker:
        pass
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / f"ackward-toggle-{maker.pid}-abcdef12"
    left.mkdir()
    (left / "server.pcap").touch()
    kept = [tmp_path / f"ackward-toggle-{os.getpid()}-abcdef12", tmp_path / f"other-{maker.pid}-abcdef12"]
    for path in kept:
        path.mkdir()
    link = tmp_path / f"ackward-toggle-{maker.pid}-abcdef13"
    link.symlink_to(kept[0])
    cleared = undo_all(Receipts(tmp_path / "receipts"), [])
    assert any(str(left) in words for words in cleared.swept)
    assert not left.exists()
    assert all(path.exists() for path in (*kept, link))


def test_the_lab_leaves_nothing_behind():
    before = {namespace.inode for namespace in in_sight()}
    lab.run(named("standoff").with_settings(["rounds=4"]))
    assert {namespace.inode for namespace in in_sight()} == before
    assert ackward("status").stdout.strip() == "No remedies in force."
