"""Only the connections that were asked for: by port, address, or name."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit import packets as p

import ackward
from ackward.capture.reading import WireCapture, read_captures
from ackward.capture.sources import find
from ackward.cli.main import run
from ackward.errors import UsageError

ONE, TWO, SIX = "10.0.0.1:40000", "10.0.0.1:40001", "[fd00::1]:40000"
DATABASE, WEB, WEB_6 = "10.0.0.2:5432", "10.0.0.2:80", "[fd00::2]:80"
TALKS = {
    (ONE, DATABASE): (p.CLIENT, p.SERVER, 40000, 5432),
    (TWO, DATABASE): (p.CLIENT, p.SERVER, 40001, 5432),
    (ONE, WEB): (p.CLIENT, p.SERVER, 40000, 80),
    (SIX, WEB_6): (p.CLIENT_6, p.SERVER_6, 40000, 80),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "a.pcap"
    talks = [p.Talk(client, server, ports=ports) for client, server, *ports in TALKS.values()]
    made.write_bytes(
        p.pcap([frame for talk in talks for frame in talk.open().send(0, b"ask").close().frames])
    )
    return made


def names(found: WireCapture) -> set[tuple[str, str]]:
    return {(str(flow.client), str(flow.server)) for flow in found.flows}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, set(TALKS)),
        ({"flow": DATABASE}, {(ONE, DATABASE), (TWO, DATABASE)}),
        ({"flow": ONE}, {(ONE, DATABASE), (ONE, WEB)}),
        ({"flow": f"{ONE}-{DATABASE}"}, {(ONE, DATABASE)}),
        ({"flow": f"{DATABASE}-{ONE}"}, {(ONE, DATABASE)}),
        ({"flow": f"{TWO}-{WEB}"}, set()),
        ({"flow": WEB_6}, {(SIX, WEB_6)}),
        ({"flow": "[fd00:0:0::2]:80-[FD00::1]:40000"}, {(SIX, WEB_6)}),
        ({"flow": [WEB, f"{TWO}-{DATABASE}", "[::7]:1"]}, {(ONE, WEB), (TWO, DATABASE)}),
        ({"flow": ONE, "port": 80}, {(ONE, WEB)}),
        ({"host": "fd00::2"}, {(SIX, WEB_6)}),
        ({"host": "10.0.0.2", "port": 80}, {(ONE, WEB)}),
        ({"host": "10.0.0.9"}, set()),
    ],
)
def test_what_was_asked_for_is_kept_and_the_rest_counted(path, options, kept):
    found = read_captures(find([path]), **options)
    assert names(found) == kept
    assert len(found.segments) + sum(found.skipped.values()) == found.packets[str(path)]


def test_what_is_not_there_is_told_what_is(path):
    for options in ({"flow": "10.0.0.1:5432"}, {"host": "10.9.9.9"}, {"port": 9}, {"host": "fd00::9"}):
        (problem,) = read_captures(find([path]), **options).problems
        assert problem.what == "no packet is of a connection that was asked for"
        assert problem.done == (
            f"the busiest ends are {DATABASE} (14 packets), {ONE} (14 packets), {WEB} (7 packets), "
            f"{WEB_6} (7 packets)"
        )
    assert not read_captures(find([path]), port=80).problems


def test_inside_tunnels_the_inner_ends_count(tmp_path: Path) -> None:
    inner = p.Talk(ports=(40000, 5432)).open().frames
    path = tmp_path / "tunnel"
    path.write_bytes(p.pcap([p.vxlan(frame) for frame in inner]))
    for flow in (DATABASE, f"{DATABASE}-{ONE}"):
        assert names(read_captures(find([path]), vxlan=4789, flow=flow)) == {(ONE, DATABASE)}
    assert not names(read_captures(find([path]), vxlan=4789, port=4789))


def test_tunnels_that_nobody_asked_to_look_into_are_told(tmp_path: Path) -> None:
    inner, path = p.Talk().open().frames, tmp_path / "tunnel"
    path.write_bytes(p.pcap([p.vxlan(frame) for frame in inner]))
    (hint,) = read_captures(find([path])).problems
    assert str(hint).endswith("UDP 4789 carries TCP in VXLAN tunnels, which was left out; try --vxlan 4789")
    assert not read_captures(find([path]), vxlan=4789).problems
    path.write_bytes(p.pcap([p.vxlan(frame, port=53) for frame in inner]))
    assert not read_captures(find([path])).problems


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.1", ":80", "10.0.0.1:", "10.0.0.1:65536", "10.0.0:80", "::1:80", "[::1:80", "[10.0.0.1]:80",
     "10.0.0.1:80-", "10.0.0.1:80-10.0.0.2", "10.0.0.1:80-10.0.0.2:1-10.0.0.3:2", "host:80", "[::g]:80"],
)  # fmt: skip
def test_bad_text_is_told_what_a_flow_looks_like(path, text, capsys):
    with pytest.raises(UsageError, match="names no flow"):
        read_captures(find([path]), flow=text)
    assert run(["analyze", str(path), "--flow", text]) == 2
    complaint = capsys.readouterr().err
    assert "10.0.0.1:40001-10.0.0.2:5432" in complaint
    assert "[::1]:80" in complaint


def test_library_and_command_line_choose_alike(path, capsys):
    assert [flow.client for flow in ackward.analyze([path], flow=f"{ONE}-{WEB}").report.flows] == [ONE]
    assert ackward.read(path, flow=[f"{ONE}-{WEB}", SIX]).flows.collect().height == 2
    assert run(["analyze", str(path), "--flow", f"{ONE}-{WEB}", "--flow", SIX, "--json"]) == 0
    told = capsys.readouterr().out
    assert ONE in told
    assert SIX in told
    assert TWO not in told
    assert run(["analyze", "--help"]) == 0
    assert "--flow 10.0.0.1:40001-10.0.0.2:5432" in capsys.readouterr().out
