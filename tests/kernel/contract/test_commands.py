"""The contract of every remedy, asked for by commands."""

from __future__ import annotations

import json

import pytest
from tests.kernel.contract.cases import Case, plan_of, state
from tests.kernel.quickack_hosts import ip

from ackward import remedies
from ackward.cli import main as cli
from ackward.errors import PartlyChanged
from ackward.kernel.namespaces import Namespace
from ackward.loop import fixing
from ackward.model.fixing import FixReport, StatusReport, UndoReport
from ackward.model.plan import State
from ackward.model.scopes import (
    BypassScope,
    CapScope,
    PortScope,
    SocketScope,
    WindowScope,
)
from ackward.remedies.receipts import Receipts


@pytest.mark.usefixtures("own_store")
class TestCommands:
    """The commands say what they did, on the right stream, with the right exit code."""

    def options(self, case: Case) -> list[str]:
        if isinstance(case.scope, PortScope):
            return ["--port", str(case.scope.port)]
        options = ["--to", case.scope.to] if case.scope.to else []
        if isinstance(case.scope, BypassScope):
            options += ["--port", "{}-{}".format(*case.scope.ports), "--cgroup", case.scope.cgroup]
            options += ["--accept", ",".join(case.scope.accepted)]
        if isinstance(case.scope, SocketScope):
            options += ["--port", "{}-{}".format(*case.scope.ports)] if case.scope.ports else []
            options += ["--cgroup", case.scope.cgroup] if case.scope.cgroup else []
            options += ["--pid", str(case.scope.pid)] if case.scope.pid else []
        if isinstance(case.scope, CapScope):
            options += ["--cap", f"{case.scope.cap_us}us"]
        if isinstance(case.scope, WindowScope):
            options += ["--segments", str(case.scope.segments)]
            options += ["--after-idle"] if case.scope.after_idle else []
        return options

    def test_fix_status_undo(self, case: Case, host: Namespace, capsys: pytest.CaptureFixture[str]) -> None:
        if case.remedy.name in ("pin", "gateway"):
            pytest.skip(f"programs ask for it: there is no `ackward fix {case.remedy.name}`")
        before = state(host)
        fix = ["fix", case.remedy.name, "--netns", host.name, *self.options(case)]
        assert cli.run([*fix, "--dry-run"]) == 0
        assert state(host) == before
        assert cli.run([*fix, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out.partition("would")[2].partition("{")[2].join(["{", ""]))
        receipt = FixReport.model_validate(shown).receipt
        assert receipt is not None
        assert cli.run(fix) == 0
        assert f"In force already: receipt {receipt.id}" in capsys.readouterr().out
        assert cli.run(["status"]) == 0
        shown = capsys.readouterr().out
        assert f"\n{receipt.id} " in shown
        assert f"{case.remedy.name} for {case.scope.words}" in shown
        assert cli.run(["status", "--json"]) == 0
        [status] = StatusReport.model_validate_json(capsys.readouterr().out).remedies
        assert status.state is State.IN_FORCE
        assert cli.run(["undo", receipt.id]) == 0
        assert state(host) == before
        capsys.readouterr()
        assert cli.run(["status"]) == 0
        assert capsys.readouterr().out == "No remedies in force.\n"

    def test_undo_that_leaves_something_exits_4(
        self, host: Namespace, store: Receipts, capsys: pytest.CaptureFixture[str]
    ) -> None:
        quickack = remedies.load("quickack")
        for as_json in (False, True):
            receipt = quickack.apply(plan_of(quickack, host), store)
            assert receipt is not None
            ip(host, "route", "del", "default")
            capsys.readouterr()
            assert cli.run(["undo", receipt.id, *(["--json"] if as_json else [])]) == PartlyChanged.exit_code
            captured = capsys.readouterr()
            if as_json:
                assert "someone removed it" in UndoReport.model_validate_json(captured.out).open[0]
            else:
                assert "someone removed it" in captured.err
            ip(host, "route", "add", "default", "via", "198.19.0.2")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["fix", "quickack", "--netns", "no-such-name"], "no network namespace 'no-such-name'"),
            (["fix", "quickack", "--port", "0"], "is no TCP port"),
            (["fix", "quickack", "--port", "65536"], "is no TCP port"),
            (["fix", "quickack", "--port", "80", "--to", "10.0.0.0/8"], "exclude each other"),
            (["fix", "quickack", "--to", "10.0.0.1/8"], "write 10.0.0.0/8"),
            (["fix", "quickack", "--to", "ten"], "is not a network"),
            (["undo"], "name receipts or --all"),
            (["undo", "quickack-000000"], "there is no receipt 'quickack-000000'"),
            (["undo", "--all", "quickack-000000"], "not both"),
        ],
    )
    def test_bad_requests_exit_2_in_words_and_in_json(
        self, store: Receipts, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.run(arguments) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        assert cli.run([*arguments, "--json"]) == 2
        assert words in " ".join(map(str, json.loads(capsys.readouterr().out).values()))
        assert not store.path("x").parent.exists()

    def test_undo_all(
        self,
        case: Case,
        host: Namespace,
        store: Receipts,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # Only here: a test must not sweep the machine's other namespaces.
        monkeypatch.setattr(fixing, "in_sight", lambda: [host])
        before = state(host)
        receipt = case.apply(host, store)
        assert cli.run(["undo", "--all"]) == 0
        assert receipt.id in capsys.readouterr().out
        assert state(host) == before
        assert cli.run(["undo", "--all"]) == 0
        assert capsys.readouterr().out == "Nothing to undo.\n"

    def test_a_damaged_receipt_is_named_then_set_aside_with_exit_4(
        self,
        host: Namespace,
        store: Receipts,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(fixing, "in_sight", lambda: [host])
        store.directory.mkdir(mode=0o700)
        damaged = store.path("quickack-ffffff")
        damaged.write_text("{")
        assert cli.run(["status"]) == 0
        assert str(damaged) in capsys.readouterr().err
        assert cli.run(["status", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["damaged"] == [str(damaged)]
        assert cli.run(["undo", "--all"]) == PartlyChanged.exit_code
        assert "could not be read" in capsys.readouterr().err
        assert cli.run(["undo", "--all"]) == 0

    @pytest.mark.parametrize("command", [["fix", "quickack"], ["status"], ["undo"]])
    def test_help_has_an_example(self, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run([*command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "Example" in shown
        assert f"ackward {' '.join(command)} " in shown.partition("Example")[2]
