"""Names of captures: any bytes, of files that are not there, and of outputs that would replace a capture."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from tests.unit.capture_files import pcap, pcapng, standoffs

import ackward
from ackward.capture.sources import find
from ackward.cli.main import run
from ackward.errors import OutputFailed, Refused, UnknownName, UsageError
from ackward.loop.annotating import check
from ackward.loop.whole_files import spare_capture

CAPTURE = pcap(standoffs())
LONG = "x" * 300


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "customer.pcap"
    path.write_bytes(CAPTURE)
    return path


@pytest.fixture
def strange(tmp_path):
    """A name with a byte that is no UTF-8, and with what would colour a terminal."""
    path = tmp_path / os.fsdecode(b"a\377\x1b[31m.pcap")
    path.write_bytes(CAPTURE)
    return path


def test_any_byte_of_a_name_can_be_printed(strange, capture, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run(["analyze", str(strange), "--json", "--report", str(page)]) == 0
    told = json.loads(capsys.readouterr().out)["capture"]["source"]
    assert told == f"{tmp_path}/a\\xff\\x1b[31m.pcap"
    assert run(["analyze", str(strange)]) == 0
    assert "\x1b[31m" not in capsys.readouterr().out
    assert run(["compare", str(strange), str(capture), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["before"]["source"] == told
    assert run(["analyze", str(strange) + "not", "--json"]) == 2
    assert "\\xff" in json.loads(capsys.readouterr().out)["missing"]


@pytest.mark.parametrize("name", [LONG, f"{LONG}*", "no\0name"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(UnknownName):
        find([name])


def test_names_that_are_not_there_stop_no_others(capture, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    missing = [str(tmp_path / name) for name in ("gone.pcap", "none*.pcap", "empty", LONG)]
    assert run(["analyze", missing[0], str(capture), *missing[1:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["exchanges"] == 4
    for name in missing:
        assert any(name in note and note.endswith("left out") for note in found["capture"]["notes"]), name
    assert found["capture"]["source"] == str(capture)
    assert run(["analyze", *missing, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)
    assert error["error"] == "UnknownName"
    assert all(name in error["missing"] for name in missing[:3])
    assert error["missing"].endswith("; and 1 more")
    assert run(["analyze", missing[0], str(capture), "--annotate", str(tmp_path / "out.pcapng")]) == 0
    assert (tmp_path / "out.pcapng").stat().st_size > len(CAPTURE)


def test_names_that_may_not_be_looked_at_stop_no_others(capture, tmp_path, monkeypatch):
    """Root may look at everything: so the kernel's answer to others is made up."""
    locked = tmp_path / "locked"
    locked.mkdir()

    def refused(path):
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return iter(())

    monkeypatch.setattr(Path, "iterdir", refused)
    notes = ackward.analyze([locked, capture]).report.capture.notes
    assert any(str(locked) in note and "Permission denied" in note for note in notes)
    with pytest.raises(UnknownName, match="Permission denied"):
        find([locked])


@pytest.mark.parametrize("option", ["--report", "--annotate"])
@pytest.mark.parametrize(
    "content",
    [CAPTURE, pcapng(standoffs()), gzip.compress(CAPTURE), b"\x28\xb5\x2f\xfd..", b"\x04\x22\x4d\x18.."],
)
def test_no_capture_is_replaced(capture, tmp_path, capsys, option, content):
    """An unquoted `--report *.pcap` makes the first capture the target."""
    other = tmp_path / "b.pcap"
    other.write_bytes(content)
    for target in (other, capture):
        assert run(["analyze", str(capture), option, str(target)]) == 2
        error = capsys.readouterr().err
        assert "begins like a capture" in error
        assert "remove that file" in error
    assert (other.read_bytes(), capture.read_bytes()) == (content, CAPTURE)


def test_nothing_that_is_read_is_replaced(capture, tmp_path, capsys):
    """Whatever it begins like, and by whatever name."""
    notes, link = tmp_path / "notes.txt", tmp_path / "link"
    notes.write_text("no capture")
    link.symlink_to(notes)
    for option in ("--report", "--annotate"):
        assert run(["analyze", str(capture), str(notes), option, str(link)]) == 2
        assert "one of the captures to read" in capsys.readouterr().err
    assert notes.read_text() == "no capture"


def test_pages_and_what_is_new_are_written(capture, tmp_path):
    page = tmp_path / "page.html"
    for _ in range(2):
        assert run(["analyze", str(capture), "--report", str(page)]) == 0
    assert page.read_text().startswith("<!")
    with pytest.raises(Refused):
        check(find([page]), capture)
    spare_capture(page)
    spare_capture(tmp_path / "new")
    spare_capture(Path(os.devnull))
    with pytest.raises(UsageError):
        check(find([capture]), capture)


def test_where_tables_cannot_go_is_told_before_the_work(capture, tmp_path, monkeypatch):
    monkeypatch.setattr("ackward.loop.analyzing.analyze", None)  # nothing may be read
    for place in (capture, capture / "below", tmp_path / LONG, tmp_path / os.fsdecode(b"\377")):
        assert run(["analyze", str(capture), "--parquet", str(place)]) == OutputFailed.exit_code


@pytest.mark.parametrize("option", ["--report", "--parquet"])
def test_what_cannot_be_written_is_told_in_plain_letters(capture, tmp_path, capsys, option):
    (tmp_path / "\x1b[31mred").touch()
    assert (
        run(["analyze", str(capture), option, str(tmp_path / "\x1b[31mred" / "below")])
        == OutputFailed.exit_code
    )
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert "\\x1b[31mred/below cannot be written (" in error


def test_tables_take_nobodys_directory(capture, tmp_path):
    theirs = tmp_path / "tables" / ".partial"
    theirs.mkdir(parents=True)
    (theirs / "kept").touch()
    assert run(["analyze", str(capture), "--parquet", str(tmp_path / "tables")]) == 0
    assert (theirs / "kept").exists()
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        ".partial", "exchanges.parquet", "findings.parquet", "flows.parquet", "segments.parquet",
    ]  # fmt: skip


def test_brackets_in_a_pages_name_are_no_markup(capture, tmp_path, capsys):
    page = tmp_path / "x[old].html"
    assert run(["analyze", str(capture), "--report", str(page)]) == 0
    assert f"report: {page}" in capsys.readouterr().err
