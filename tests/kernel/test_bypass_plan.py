"""Whether a bypass is planned: what the self-test found decides, and what a request must say."""

from __future__ import annotations

import json
import os

import pytest

from ackward import remedies
from ackward.cli import main as cli
from ackward.kernel.namespaces import Namespace
from ackward.loop import fixing
from ackward.model.bypass import Capabilities, Finding, Hazard, Outcome
from ackward.model.plan import Plan, Refusal
from ackward.model.scopes import BypassScope
from ackward.remedies import receipts
from ackward.remedies.bypass import capabilities
from ackward.remedies.receipts import Receipts

pytestmark = pytest.mark.usefixtures("pins", "own_store")


def found(**outcomes: Outcome) -> Capabilities:
    findings = tuple(
        Finding(
            hazard=hazard,
            outcome=outcomes.get(hazard.name.lower(), Outcome.SAME),
            measured=f"{hazard.value} was seen",
        )
        for hazard in Hazard
    )
    return Capabilities(
        kernel=os.uname().release,
        boot_id=receipts.boot_id(),
        engine=capabilities.build(),
        tried="2026-01-01T00:00:00+00:00",
        findings=findings,
    )


def plan(host: Namespace, **scope: object) -> Plan | Refusal:
    scope = {"ports": (80, 80), **scope}
    return remedies.load("bypass").plan(host, BypassScope.model_validate(scope))


def test_untried_is_refused(host: Namespace) -> None:
    refusal = plan(host)
    assert isinstance(refusal, Refusal)
    assert "`ackward doctor --self-test`" in refusal.next_step


def test_a_difference_is_refused_unless_it_is_accepted(host: Namespace) -> None:
    capabilities.store(found(oob=Outcome.DIFFERS, splice=Outcome.DIFFERS, peek=Outcome.MITIGATED))
    refusal = plan(host, accepted=("splice",))
    assert isinstance(refusal, Refusal)
    assert "in oob" in refusal.reason
    assert "splice" not in refusal.reason
    assert "`--accept oob`" in refusal.next_step
    assert isinstance(plan(host, accepted=("splice", "oob")), Plan)


def test_what_only_blocking_readers_meet_needs_no_word_when_none_joins(host: Namespace) -> None:
    capabilities.store(found(waitall=Outcome.DIFFERS, wakeup=Outcome.DIFFERS))
    made = plan(host)
    assert isinstance(made, Plan)
    assert any("blocks in recv() later may get EAGAIN" in note for note in made.notes)
    refusal = plan(host, joins="all")
    assert isinstance(refusal, Refusal)
    assert "`--accept waitall,wakeup`" in refusal.next_step


def test_findings_of_another_boot_or_program_are_none(host: Namespace) -> None:
    for update in ({"boot_id": "earlier"}, {"engine": "another"}, {"kernel": "5.10"}):
        capabilities.store(found().model_copy(update=update))
        assert isinstance(plan(host), Refusal)
    capabilities.path().write_bytes(b"{")
    assert capabilities.load() is None
    assert Receipts().load().damaged == ()


def test_without_a_scope_nothing_joins(host: Namespace) -> None:
    refusal = plan(host, ports=None)
    assert isinstance(refusal, Refusal)
    assert "no scope is named" in refusal.reason


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "80", "--accept", "everything"], "--accept everything is no hazard"),
        (["--port", "0"], "is no TCP port"),
        (["--port", "80", "--exclude", "10.0.0.1/8"], "write 10.0.0.0/8"),
        (["--port", "80", "--exclude", "90-80"], "turned round"),
        (["--port", "80", "--from", "ten"], "is not a network"),
        (["--port", "80", "--exclude", ",".join(map(str, range(1, 10)))], "more than the 8"),
    ],
)
def test_bad_requests_exit_2(
    host: Namespace, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capabilities.store(found())
    assert cli.run(["fix", "bypass", "--netns", host.name, *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_command_with_everything(
    host: Namespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixing, "in_sight", lambda: [host])
    capabilities.store(found())
    options = [
        "--port",
        "80-90",
        "--to",
        "10.0.0.0/8",
        "--from",
        "10.1.0.0/16",
        "--exclude",
        "85,10.2.0.0/16",
    ]
    assert cli.run(["fix", "bypass", "--netns", host.name, *options, "--no-learn", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["plan"]["request"] == ["bypass", *options, "--no-learn"]
    assert shown["receipt"]["scope"]["excluded_ports"] == [[85, 85]]
    assert cli.run(["status"]) == 0
    assert "0 connections joined now" in capsys.readouterr().out
    assert cli.run(["undo", "--all"]) == 0
