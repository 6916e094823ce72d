"""The command line without a kernel: help, mistakes, and where output goes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from ackward.cli import lab, main, output
from ackward.errors import OutputFailed
from ackward.lab.peer import Shape
from ackward.lab.scenarios import ALL, EXPERIMENTS


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and every group of commands."""
    for name in main.COMMANDS:
        yield (name,)
        module = main.importlib.import_module(f"ackward.cli.{name}")
        for below in getattr(get_command(module.app), "commands", {}):
            yield (name, below)


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_explains_itself_with_an_example(
    command: tuple[str, ...], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*command, option]) == 0
    told = capsys.readouterr().out
    assert f"Usage: ackward {' '.join(command)}" in told
    assert "Example" in told


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["fix", "initcwnd"], "ackward fix initcwnd --help"),
        (["predict", "acks"], "ackward predict acks --help"),
        (["fix", "nothing"], "ackward fix --help"),
        (["watch", "--nothing"], "ackward watch --help"),
    ],
)
def test_a_mistake_leads_to_the_help_of_that_very_command(
    arguments: list[str], asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    assert f"`{asked}`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["analyze", "any.pcap", "--port", "99999"], "--port 99999 is no TCP port"),
        (["analyze", "any.pcap", "--port", "x"], "--port 'x' is no port"),
        (["analyze", "any.pcap", "--vxlan", "0"], "--vxlan 0 is no UDP port"),
        (["analyze", "any.pcap", "--vxlan", "99999"], "--vxlan 99999 is no UDP port"),
        (["compare", "any.pcap", "other.pcap", "--port", "7_0"], "--port '7_0' is no port"),
        (["watch", "--port", "0"], "--port 0 is no TCP port"),
        (["fix", "bypass", "--exclude", "22,zz"], "--exclude 'zz' is not a network"),
        (["fix", "bypass", "--from", "zz"], "--from 'zz' is not a network"),
        (["fix", "bypass", "--to", "zz"], "--to 'zz' is not a network"),
    ],
)
def test_a_wrong_value_is_told_under_the_name_of_its_option(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    assert words in capsys.readouterr().err


def test_what_only_root_may_is_said_with_the_sudo_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(name: str, arguments: list[str]) -> int:
        raise PermissionError(13, "Permission denied", "/run/ackward/node/missed")

    monkeypatch.setattr(main, "_dispatch", denied)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr("sys.argv", ["/nowhere/ackward", "node", "status"])
    assert main.run(["node", "status"]) == 3
    assert capsys.readouterr().err == (
        "ackward: /run/ackward/node/missed is for root alone. It ended there. "
        "Next: run `sudo /nowhere/ackward node status`.\n"
    )
    assert main.run(["node", "status", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["exit_code"] == 3


def test_a_report_never_takes_the_place_of_a_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        output.write_file(output.writable(pipe) or Path(), "page")
        assert os.read(reader, 100) == b"page"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_report_goes_where_a_link_points(tmp_path: Path) -> None:
    link, page = tmp_path / "latest.html", tmp_path / "monday.html"
    page.write_text("old")
    link.symlink_to(page)
    output.write_file(link, "new")
    assert link.is_symlink()
    assert page.read_text() == "new"


@pytest.mark.parametrize("name", ["nowhere/report.html", "."])
def test_a_report_that_cannot_be_written_is_told_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputFailed, match="cannot be written"):
        output.writable(tmp_path / name)
    assert main.run(["lab", "run", "no-such-scenario", "--report", str(tmp_path / name)]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_one_scenario_has_what_a_run_of_it_needs_to_know(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run(["lab", "list", "bypass"]) == 0
    told = capsys.readouterr().out
    for words in ("qperf", "nginx and wrk", "redis-server", "postgresql", "takes: about", "--set turns=3"):
        assert words in told, words
    assert main.run(["lab", "list", "standoff"]) == 0
    assert "--set sizes=100,200 " in capsys.readouterr().out
    assert main.run(["lab", "list", "no-such-scenario"]) == 2


def test_every_setting_of_a_list_can_be_set_as_it_stands_there(capsys: pytest.CaptureFixture[str]) -> None:
    for scenario in (*ALL, *EXPERIMENTS):
        assert main.run(["lab", "list", scenario.name]) == 0
        shown = [line.split()[1] for line in capsys.readouterr().out.splitlines() if " --set " in line[:8]]
        assert shown
        given = [setting for setting in shown if not setting.endswith("=")]
        assert scenario.with_settings(given) == scenario


def test_the_help_of_run_says_where_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lab", "run", "--help"]) == 0
    assert "ackward lab list NAME" in capsys.readouterr().out


def test_settings_on_a_page_read_as_set_takes_them() -> None:
    shape = Shape(sizes=(100, 200), rounds=20, nagle=True, latency=2.5)
    told = list(lab._as_set({**vars(shape), "congestion": ""}))
    assert {"sizes=100,200", "rounds=20", "nagle=on", "latency=2.5"} <= set(told)
    assert not [each for each in told if each.startswith(("congestion", "drain", "pause"))]


def test_options_that_all_remedies_share_come_last_and_are_the_same() -> None:
    from ackward.cli import fix

    group = get_command(fix.app)
    shared = ["dry_run", "prove", "lease", "persist", "page", "as_json"]
    for command in group.commands.values():  # type: ignore[attr-defined]
        assert [each.name for each in command.params][-len(shared) :] == shared
