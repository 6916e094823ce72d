"""Several files: the two ends of one traffic are joined, pieces of one capture are one, and no segment counts twice."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from tests.unit import packets as p
from tests.unit.capture_files import frames, standoffs
from tests.unit.dialogue import CLIENT, SERVER

from ackward.capture.reading import read_captures
from ackward.capture.sources import find
from ackward.cli.main import run
from ackward.diagnosis import joining
from ackward.diagnosis.points import same_traffic
from ackward.loop.analyzing import analyze

CORPUS = Path(__file__).parent.parent / "data" / "corpus"
MS = 1_000_000
HOUR = 3600 * 10**9
#: From the client to the server, in nanoseconds.
PATH = 10 * MS


def ends(name):
    return [CORPUS / f"{name}.{end}.pcap" for end in ("client", "server")]


def told(files):
    """What a report says, but where it came from."""
    report = analyze(files).report
    said = json.loads(report.to_json())
    del said["capture"]
    return said


def cut(path, pieces, into):
    """A capture as a ring of files."""
    data = path.read_bytes()
    packets, at = [], 24
    while at < len(data):
        (kept,) = struct.unpack_from("<I", data, at + 8)
        packets.append(data[at : at + 16 + kept])
        at += 16 + kept
    size = -(-len(packets) // pieces)
    made = [into / f"{path.name}{number}" for number in range(pieces)]
    for number, piece in enumerate(made):
        piece.write_bytes(data[:24] + b"".join(packets[number * size : (number + 1) * size]))
    return made


def seen(path, packets, way=0.0, ahead=0, parts=slice(None)):
    """Those packets as captured at this part of the way to the server, by a clock that is ahead by so much."""
    shown = []
    for time_ns, frame in frames(packets):
        to_server = frame[26:30] == CLIENT.address.packed
        shown.append((time_ns + ahead + round(PATH * (way if to_server else -way)), frame))
    path.write_bytes(p.pcap([(frame, time) for time, frame in sorted(shown)[parts]], nano=True))
    return path


def groups(files):
    capture = read_captures(find(files))
    borders = [source.first_packet for source in capture.sources]
    file = [sum(border <= packet for border in borders) - 1 for packet in capture.segments["packet"].tolist()]
    return same_traffic(capture.segments, np.array(file), len(files))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_third_file_of_other_traffic_changes_nothing(place):
    both, other = ends("fast-retransmit"), CORPUS / "healthy.client.pcap"
    apart, alone = analyze(both).report, analyze([other]).report
    report = analyze([*both[:place], other, *both[place:]]).report
    assert report.exchanges == apart.exchanges + alone.exchanges == 12
    assert [(found.cause, found.exchanges, found.lost_ns) for found in report.findings] == [
        (found.cause, found.exchanges, found.lost_ns) for found in apart.findings
    ]
    assert sum(note.startswith("two views") for note in report.capture.notes) == 1


def test_a_directory_with_two_pairs(tmp_path):
    names = ("fast-retransmit", "standoff")
    for name in names:
        for path in ends(name):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    report = analyze([tmp_path]).report
    pairs = [analyze(ends(name)).report for name in names]
    assert report.elapsed_ns == sum(pair.elapsed_ns for pair in pairs)
    assert sorted((found.cause, found.exchanges, found.lost_ns.total) for found in report.findings) == sorted(
        (found.cause, found.exchanges, found.lost_ns.total) for pair in pairs for found in pair.findings
    )
    assert sum(note.startswith("two views") for note in report.capture.notes) == 2


@pytest.mark.parametrize("by_end", [True, False])
@pytest.mark.parametrize("name", ["fast-retransmit", "slow-start-segmented", "standoff"])
def test_ring_files_of_both_ends(tmp_path, name, by_end):
    """The borders of the files need not be the same moment, nor their number."""
    client, server = (cut(path, pieces, tmp_path) for path, pieces in zip(ends(name), (3, 4), strict=True))
    mixed = sorted([*server, *client], key=lambda path: path.name[-1])
    files, first = ([*client, *server], 1) if by_end else (mixed, -1)
    assert told(files) == told(ends(name)[::first])


def test_what_is_sent_again_between_ring_files_of_both_ends(tmp_path):
    """SYN and SYN-ACK come again in the next file of the same end: it is no third point for all that."""
    client, server = (
        cut(path, pieces, tmp_path) for path, pieces in zip(ends("accept-queue-any"), (5, 6), strict=True)
    )
    assert told([*client, *server]) == told(ends("accept-queue-any"))


@pytest.mark.parametrize("name", ["fast-retransmit", "slow-start-segmented", "retransmission-timeout"])
def test_ring_files_of_one_point_are_one_capture(tmp_path, name):
    whole = ends(name)[0]
    assert told(cut(whole, 5, tmp_path)) == told([whole])


def test_what_is_sent_again_across_a_border_makes_no_second_point(tmp_path):
    """The same request and the same answer, each once in either file, of one flow of three that both files hold."""
    talks = [p.Talk(ports=(40000 + number, 80)).open() for number in range(3)]
    for talk in talks:
        talk.send(0, b"ask").send(1, b"answer")
    first = [frame for talk in talks for frame in talk.frames]
    second = talks[0].frames[-2:]
    second += [frame for talk in talks for frame in talk.send(0, b"more").send(1, b"done").frames[-2:]]
    entries = [(frame, p.START + number * MS) for number, frame in enumerate(first + second)]
    pieces = {"whole": entries, "one": entries[: len(first)], "two": entries[len(first) :]}
    for piece, packets in pieces.items():
        (tmp_path / piece).write_bytes(p.pcap(packets))
    files = [tmp_path / "one", tmp_path / "two"]
    assert groups(files) == []
    assert told(files) == told([tmp_path / "whole"])


def test_a_proxy_between_two_hosts_is_joined_with_each_of_them(tmp_path):
    """Three captures, two traffics: no file of the far ends has anything to do with the other one."""
    one, two = ends("fast-retransmit"), ends("standoff")
    middle = tmp_path / "2-middle.pcap"
    middle.write_bytes(one[1].read_bytes() + two[0].read_bytes()[24:])
    report = analyze([one[0], middle, two[1]]).report
    assert [flow.seen_from for flow in report.flows] == ["both"] * len(report.flows)
    assert sum(note.startswith("two views") for note in report.capture.notes) == 2


def said_once(files, kept):
    """The same as of the one file alone, and a note that says so wherever the report goes."""
    report = analyze(files).report
    assert told(files) == told([kept])
    [note] = [note for note in report.capture.notes if "the same segments" in note]
    assert f"only those of {kept} were counted" in note
    return note


def test_of_three_points_one_is_counted(tmp_path, capsys):
    files = [
        seen(tmp_path / f"{number}.pcap", standoffs(8), way, ahead=5 * MS * number)
        for number, way in enumerate((0.0, 0.4, 1.0))
    ]
    files[1] = seen(files[1], standoffs(9), 0.4, ahead=5 * MS)
    note = said_once(files, files[1])
    assert "more than two points" in note
    page = tmp_path / "page.html"
    names = list(map(str, files))
    assert run(["analyze", *names, "--json", "--report", str(page)]) == 0
    assert note in json.loads(capsys.readouterr().out)["capture"]["notes"]
    assert "the same segments of 1 flow" in page.read_text()
    assert run(["analyze", *names]) == 0
    assert "the same segments of 1 flow" in " ".join(capsys.readouterr().out.split())


def test_a_copy_is_counted_once(tmp_path):
    one = seen(tmp_path / "one.pcap", standoffs(8))
    copy = seen(tmp_path / "two.pcap", standoffs(8), parts=slice(3, 20))
    assert "copies" in said_once([one, copy], one)


def test_two_views_without_a_clock_are_counted_once(tmp_path, monkeypatch):
    files = [seen(tmp_path / f"{way}.pcap", standoffs(8), way) for way in (0, 1)]
    assert analyze(files).report.flows[0].seen_from == "both"
    monkeypatch.setattr(joining, "compare", lambda seen: None)
    assert "no clock" in said_once(files, files[0])


@pytest.mark.parametrize("ahead", [0, -HOUR, HOUR])
def test_pairs_are_found_whatever_their_clocks_show(tmp_path, ahead):
    files = [
        seen(tmp_path / "client.pcap", standoffs(8)),
        seen(tmp_path / "server.pcap", standoffs(8), 1, ahead),
        CORPUS / "nagle.client.pcap",
    ]
    [group] = groups(files)
    assert (group.points, group.joinable, len(group.flows)) == (((0,), (1,)), True, 1)
    assert {flow.seen_from for flow in analyze(files).report.flows} >= {"both"}


def test_one_direction_alone_is_not_counted_twice(tmp_path):
    """A tap of one direction has no clock to be joined by."""
    whole = seen(tmp_path / "whole.pcap", standoffs(8))
    packets = [
        (frame, time + 50_000)
        for time, frame in frames(standoffs(8))
        if frame[26:30] == SERVER.address.packed
    ]
    tap = tmp_path / "tap.pcap"
    tap.write_bytes(p.pcap(packets, nano=True))
    assert "no clock" in said_once([whole, tap], whole)
