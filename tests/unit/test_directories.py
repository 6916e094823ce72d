"""Directories that come with the first thing in them and go with the last."""

from __future__ import annotations

from pathlib import Path

import pytest

from ackward.kernel import directories


def test_what_another_takes_away_in_between_is_made_again(tmp_path: Path) -> None:
    place, file = tmp_path / "ours" / "place", tmp_path / "ours" / "place" / "file"
    interruptions = 3

    def make() -> str:
        nonlocal interruptions
        if interruptions:
            interruptions -= 1
            directories.leave(place, place.parent)
        file.write_text("made")
        return "done"

    assert directories.inside(place, make) == "done"
    assert file.read_text() == "made"


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    place = tmp_path / "ours"
    place.write_text("a file")
    with pytest.raises(FileExistsError):
        directories.inside(place, lambda: pytest.fail("it was made"))


def test_what_is_there_already_is_an_error_of_the_maker(tmp_path: Path) -> None:
    directories.inside(tmp_path, (tmp_path / "one").mkdir)
    with pytest.raises(FileExistsError):
        directories.inside(tmp_path, (tmp_path / "one").mkdir)


def test_only_empty_ones_go_and_those_around_them_stay(tmp_path: Path) -> None:
    inner, outer = tmp_path / "outer" / "inner", tmp_path / "outer"
    inner.mkdir(parents=True)
    (outer / "another").touch()
    directories.leave(inner, outer)
    assert [entry.name for entry in outer.iterdir()] == ["another"]
    directories.leave(inner, outer)  # nothing to do is no error
    (outer / "another").unlink()
    directories.leave(inner.parent, tmp_path / "nowhere")
    assert not outer.exists()
