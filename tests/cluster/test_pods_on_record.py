"""`ackward status` and `undo --all` beside a node agent: what it did to pods is named, and left to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.cni_runtime import Agent, Chain, quick, wired_pod
from tests.cluster.node_agent import in_process
from tests.kernel.bpf_file_system import bpf_file_system
from tests.kernel.quickack_hosts import routing

import ackward
from ackward.cli import pods_on_record
from ackward.errors import PrivilegeMissing
from ackward.kernel.bpffs import OURS
from ackward.kernel.namespaces import Namespace
from ackward.loop import fixing
from ackward.remedies import pods_on_record as records
from ackward.remedies import receipts
from ackward.remedies.transaction import identify

#: A copy of a route and a hook: what a sweep of the namespace would take for a leftover.
ASKS = {"ackward.io/quickack": "10.0.0.0/8", "ackward.io/nodelay": "true"}


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    made = Agent(tmp_path / "node")
    monkeypatch.setattr(receipts, "DIRECTORY", tmp_path / "ackward")
    monkeypatch.setattr(records, "ATTACHMENTS", made.directory / "attachments")
    return made


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Namespace]:
    with bpf_file_system(), wired_pod() as made:
        monkeypatch.setattr(fixing, "in_sight", lambda: [made])  # a test must not sweep the machine's others
        yield made


def hooks(here: Namespace) -> list[str]:
    return [entry.name for entry in OURS.glob(f"*@{identify(here).cookie}")]


def test_what_the_agent_did_is_named_and_stays(agent: Agent, here: Namespace) -> None:
    chain = Chain(here, "podnet", "1.0.0", [agent.entry])
    before = routing(here)
    with agent.running():
        chain.add(here, ASKS, {"cniVersion": "1.0.0"})
        applied = routing(here)
        status = in_process("status")
        assert (status.returncode, status.stdout) == (0, "No remedies in force.\n")
        assert "has 1 pod on record: `ackward node status` shows" in status.stderr
        assert json.loads(in_process("status", "--json").stdout)["remedies"] == []
        done = in_process("undo", "--all")
        assert (done.returncode, done.stdout) == (0, "Nothing to undo.\n")
        assert "`ackward node uninstall` takes it back" in done.stderr
        assert (routing(here), len(hooks(here))) == (applied, 1)
        cleared = ackward.undo_everything()
        assert (cleared.swept, [pod.inode for pod in cleared.spared]) == ((), [here.inode])
        assert (routing(here), len(hooks(here))) == (applied, 1)
        chain.check(here, ASKS)
        chain.delete(here)
    assert (routing(here), hooks(here)) == (before, [])
    assert in_process("status").stderr == ""


def test_changes_are_told_one_by_one_and_none_of_no_connection(agent: Agent, here: Namespace) -> None:
    chain = Chain(here, "podnet", "1.0.0", [agent.entry])
    with agent.running():
        chain.add(here, ASKS, {"cniVersion": "1.0.0"})
        made = agent.served[-1].changed
        assert not any("open connection" in words for words in made)
        assert any("nodelay" in words.lower() for words in made)
        chain.delete(here)
        undone = agent.served[-1].changed
        assert len(undone) >= len(made)
        assert not any("; " in words for words in undone)


def test_without_its_record_it_is_a_leftover(agent: Agent, here: Namespace) -> None:
    chain = Chain(here, "podnet", "1.0.0", [agent.entry])
    before = routing(here)
    with agent.running():
        chain.add(here, ASKS, {"cniVersion": "1.0.0"})
    for path in agent.pods.directory.glob("*/attachment"):
        path.unlink()
    done = in_process("undo", "--all")
    assert done.stdout.count("Removed without a receipt") == 2
    assert done.stderr == ""
    assert (routing(here), hooks(here)) == (before, [])
    assert quick(here) == []


def test_who_is_not_root_is_told(agent: Agent, capsys: pytest.CaptureFixture[str]) -> None:
    agent.directory.mkdir()
    agent.pods.directory.mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        assert pods_on_record.on_record() == ()
        with pytest.raises(PrivilegeMissing, match="cannot be told from leftovers"):
            ackward.undo_everything()
    finally:
        os.seteuid(0)
    assert "Only root" in capsys.readouterr().err
