"""Files that people ask for, in directories where others make files and links too."""

from __future__ import annotations

from pathlib import Path

import pytest

from ackward.cli.output import writable, write_file
from ackward.errors import OutputFailed
from ackward.loop.whole_files import whole_file


def test_nothing_is_written_through_what_somebody_put_beside_it(tmp_path: Path) -> None:
    """The name of the unfinished file could be guessed once."""
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / ".report.html.partial").symlink_to(victim)
    write_file(shared / "report.html", "ours")
    assert (victim.read_text(), (shared / "report.html").read_text()) == ("theirs", "ours")


def test_what_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("before")

    def write() -> None:
        with whole_file(report) as file:
            file.write(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.html", "before")]


def test_a_link_stays_and_the_mode_is_as_the_umask_has_it(tmp_path: Path) -> None:
    link, plain = tmp_path / "link", tmp_path / "plain"
    link.symlink_to("kept")
    plain.touch()
    write_file(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "kept").read_text() == "text"
    assert (tmp_path / "kept").stat().st_mode == plain.stat().st_mode


def test_a_link_that_may_not_be_followed_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp the kernel lets nobody follow somebody else's (fs.protected_symlinks): a stat is refused then."""

    def refused(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refused)
    with pytest.raises(OutputFailed, match="Permission denied"):
        writable(tmp_path / "report.html")
