"""A file that others write too is replaced whole, and nothing that they wrote meanwhile is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.polling import eventually

from ackward.errors import Refused, Unavailable
from ackward.node import replacing
from ackward.node.replacing import PARTIAL, install, rewrite


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "10-[a].conflist"
    path.write_bytes(b"one")
    return path


def signed(text: bytes) -> bytes:
    return text if text.endswith(b"+") else text + b"+"


def by_rename(path: Path, text: bytes) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_bytes(text)
    beside.replace(path)


def in_place(path: Path, text: bytes) -> None:
    path.write_bytes(text)


def alone(file: Path) -> bool:
    return list(file.parent.iterdir()) == [file]


def test_it_is_changed_once(file: Path) -> None:
    assert rewrite(file, signed)
    assert file.read_bytes() == b"one+"
    assert not rewrite(file, signed)
    assert alone(file)


@pytest.mark.parametrize("write", [by_rename, in_place])
def test_what_somebody_wrote_after_we_read_is_the_new_beginning(
    file: Path, write: Callable[[Path, bytes], None]
) -> None:
    news = [b"two", b"three"]

    def slow(text: bytes) -> bytes:
        if news:
            write(file, news.pop(0))
        return signed(text)

    assert rewrite(file, slow)
    assert file.read_bytes() == b"three+"
    assert alone(file)


def test_theirs_stays_as_it_is_if_it_may_not_be_changed(file: Path) -> None:
    def slow(text: bytes) -> bytes:
        if text == b"one":
            by_rename(file, b"theirs")
            return b"one+"
        raise Refused("not ours", consequence="it was not changed", next_step="see whose it is")

    with pytest.raises(Refused, match="not ours"):
        rewrite(file, slow)
    assert file.read_bytes() == b"theirs"
    assert alone(file)


def test_who_writes_all_the_time_has_the_last_word(file: Path) -> None:
    count = 0

    def slow(text: bytes) -> bytes:
        nonlocal count
        count += 1
        by_rename(file, b"%d" % count)
        return signed(text)

    with pytest.raises(Refused, match="all the time"):
        rewrite(file, slow)
    assert file.read_bytes() == b"%d" % count
    assert alone(file)


def test_a_file_that_is_open_for_writing_counts_when_it_is_closed(file: Path) -> None:
    """Its writer opened it before we put ours in its place: what it writes now would be written into nothing."""
    writer = file.open("r+b")

    def finish() -> None:
        # Ours is there, so ours waits for this writer.
        assert eventually(lambda: file.read_bytes() == b"one+")
        writer.write(b"two and more")
        writer.close()

    thread = threading.Thread(target=finish)
    thread.start()
    try:
        assert rewrite(file, signed)
    finally:
        thread.join()
    assert file.read_bytes() == b"two and more+"


def test_where_names_cannot_be_exchanged_it_is_renamed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing, "exchange", lambda one, other: False)
    assert rewrite(file, signed)
    assert file.read_bytes() == b"one+"
    assert alone(file)


def test_what_a_killed_writer_of_ours_left_is_cleared(file: Path) -> None:
    (file.parent / f".{file.name}.0a1b2c{PARTIAL}").write_bytes(b"hal")
    rewrite(file, signed)
    assert alone(file)


def test_a_file_that_is_gone_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rewrite(tmp_path / "none", signed)
    assert not list(tmp_path.iterdir())


def test_install_puts_it_there_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    assert install(path, b"\x7fELF", 0o755)
    assert (path.read_bytes(), path.stat().st_mode & 0o7777) == (b"\x7fELF", 0o755)
    assert not install(path, b"\x7fELF", 0o755)
    path.chmod(0o644)
    assert install(path, b"\x7fELF", 0o755), (
        "a mode that keeps it from being started is not what was asked for"
    )
    with pytest.raises(Unavailable, match="cannot be written"):
        install(tmp_path / "nowhere" / "binary", b"", 0o755)


def test_install_takes_away_what_one_left_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / f".marker.0a1b2c{PARTIAL}").write_bytes(b"hal")
    for changed in (True, False):
        assert install(tmp_path / "marker", b"whole", 0o644) is changed
        assert [path.name for path in tmp_path.iterdir()] == ["marker"]
