"""The self-test and the lab's experiment from the command line: what they print, keep and leave."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from tests.kernel.bypass_differences import DECLARED
from tests.kernel.lab_hosts import ackward, ackward_json

from ackward.cli.main import run
from ackward.errors import Unavailable
from ackward.kernel import directories
from ackward.kernel.namespaces import NAMED, temporary
from ackward.model.bypass import Capabilities, Finding, Hazard, Outcome
from ackward.model.bypass_lab import BypassReport
from ackward.remedies.bypass import capabilities
from ackward.remedies.bypass.selftest import run as selftest
from ackward.remedies.bypass.selftest.run import require_redirection
from ackward.remedies.bypass.selftest.ways import PlainTcp
from ackward.report.capability_table import markdown

PAGE = Path(__file__).parents[2] / "docs" / "bypass.md"


@pytest.fixture(scope="module")
def kept() -> Path:
    """The capability file; what this machine had of it comes back at the end."""
    path = capabilities.path()
    before = path.read_bytes() if path.exists() else None
    path.unlink(missing_ok=True)
    yield path
    if before is None:
        path.unlink(missing_ok=True)
        directories.leave(path.parent, path.parent.parent)
    else:
        path.write_bytes(before)


@pytest.fixture(scope="module")
def told(kept) -> Capabilities:
    """What ``ackward doctor --self-test --json`` prints."""
    return Capabilities.model_validate(ackward_json("doctor", "--self-test"))


def test_every_hazard_was_tried_on_this_kernel(told):
    assert {finding.hazard for finding in told.findings} == set(Hazard)
    assert told.kernel == os.uname().release
    assert all(finding.measured for finding in told.findings)


def test_plans_find_what_it_found(told, kept):
    assert capabilities.load() == told
    assert json.loads(kept.read_text())["schema"] == "ackward/bypass-capabilities/1"


def test_another_build_of_the_program_has_to_be_tried_again(told, kept):
    kept.write_text(told.model_copy(update={"engine": "another"}).to_json())
    try:
        assert capabilities.load() is None
    finally:
        kept.write_text(told.to_json())


def test_no_host_of_it_is_left(told):
    assert told
    made = [path.name for path in NAMED.glob("ackward-selftest-*")]
    assert [name for name in made if not Path(f"/proc/{name.rsplit('-', 2)[1]}").exists()] == []


@pytest.mark.parametrize("hazard", sorted(DECLARED))
def test_a_declared_difference_still_exists(told, hazard):
    assert finding_of(told, hazard).outcome is Outcome.DIFFERS, finding_of(told, hazard).measured


@pytest.mark.parametrize("hazard", sorted(set(Hazard) - set(DECLARED)))
def test_what_is_not_declared_is_as_with_tcp(told, hazard):
    assert finding_of(told, hazard).outcome is not Outcome.DIFFERS, finding_of(told, hazard).measured


def finding_of(told: Capabilities, hazard: Hazard) -> Finding:
    [found] = [finding for finding in told.findings if finding.hazard is hazard]
    return found


@pytest.mark.usefixtures("pins")
def test_it_names_what_a_fix_asks_for_and_nothing_more(told, monkeypatch, capsys):
    """More would be taken for leave to join programs that block in recv()."""
    monkeypatch.setattr(selftest, "self_test", lambda _: told)
    assert run(["doctor", "--self-test"]) == 0
    named = re.search(r"--accept (\S+)", capsys.readouterr().err)[1]
    assert run(["fix", "bypass", "--port", "7000", "--dry-run"]) == 2
    assert f"`--accept {named}`" in " ".join(capsys.readouterr().err.split())


def test_without_root_it_says_how(capsys):
    """As for a user: the process has root's files, but an effective user of its own."""
    os.seteuid(65534)
    try:
        assert run(["doctor", "--self-test"]) == 3
    finally:
        os.seteuid(0)
    assert "sudo" in capsys.readouterr().err


def test_a_bypass_that_takes_nothing_past_the_stack_is_no_bypass():
    with temporary("plain") as host, pytest.raises(Unavailable, match="nothing goes past the stack"):
        require_redirection(PlainTcp(host))


def test_the_documentation_has_every_hazard(told):
    """The outcomes are one kernel's; the rows are the same everywhere."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (?:same|mitigated|differs)", PAGE.read_text(), re.MULTILINE)
    assert rows == re.findall(r"^\| `([a-z-]+)` \|", markdown(told), re.MULTILINE)


@pytest.mark.skipif(shutil.which("qperf") is None, reason="probe failed: qperf is not installed")
def test_the_lab_measures_both_ways_in_turns(tmp_path):
    page = tmp_path / "bypass.html"
    report = BypassReport.model_validate(
        ackward_json(
            *("lab", "run", "bypass", "--set", "sizes=64", "--set", "servers=redis", "--set", "turns=1"),
            *("--report", str(page)),
        )
    )
    [message] = report.messages
    assert message.size == 64
    assert all(
        value > 0 for pairs in (message.latency_ns, message.bandwidth) for value in pairs.tcp + pairs.bypass
    )
    [server] = report.servers
    assert (server.name, server.failed) == ("redis", 0)
    assert server.redirected > 1000
    assert "Latency: times as fast as TCP" in page.read_text()
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", page.read_text()).lower().replace("http-equiv", "")


def test_the_lab_refuses_what_means_nothing():
    done = ackward("lab", "run", "bypass", "--set", "servers=apache")
    assert done.returncode == 2
    assert "nginx,redis,postgresql" in done.stderr
