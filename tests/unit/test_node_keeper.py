"""The keeper of the entry: where the kernel has no inotify to give, what it says once, and what it reads of a list."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.polling import eventually

from ackward.model.node import Placement
from ackward.node import keeper
from ackward.node.conflist import TYPE, entry
from ackward.node.keeper import Keeper

LIST = '{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp"}]}'


@pytest.mark.parametrize("lacking", ["instances", "watches"])
def test_without_inotify_it_looks_by_itself_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(keeper.Watch, "__init__" if lacking == "instances" else "add", full)
    monkeypatch.setattr(keeper, "LOOK_AGAIN", 0.01)
    path, binary = tmp_path / "10-n.conflist", tmp_path / "bin" / TYPE
    binary.parent.mkdir()
    binary.touch(0o755)
    path.write_text(LIST)
    said: list[str] = []
    made = Keeper(
        tmp_path,
        binary,
        entry("/run/x", "open"),
        place=lambda: None,
        rewrote=lambda path, what: None,
        moved=lambda found: None,
        trouble=said.append,
    )
    reader, writer = os.pipe()
    thread = threading.Thread(target=made.run, args=(reader, lambda: None))
    thread.start()
    try:
        for _ in range(3):
            assert eventually(lambda: TYPE in path.read_text())
            path.write_text(LIST)
    finally:
        os.write(writer, b".")
        thread.join()
        os.close(reader)
        os.close(writer)
    assert len(said) == 1
    assert "once a second" in said[0]


def test_a_binary_that_goes_is_put_back_when_its_remover_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(keeper.time, "monotonic", lambda: clock)
    binary, path = tmp_path / "bin" / TYPE, tmp_path / "10-n.conflist"
    path.write_text(LIST)
    binary.parent.mkdir()
    said: list[str] = []

    def place() -> None:
        said.append("binary")
        binary.touch(0o755)

    place()
    made = Keeper(
        tmp_path,
        binary,
        entry("/run/x", "open"),
        place=place,
        rewrote=lambda path, what: said.append(what),
        moved=lambda found: None,
        trouble=lambda words: None,
    )
    made.settle()
    binary.unlink()
    made.settle()
    binary.parent.rmdir()  # nothing came back into it
    assert path.read_text() == LIST, "without its binary the entry goes"
    assert "has just gone" in made.entry.words
    binary.parent.mkdir()
    clock += keeper.LOOK_AGAIN
    made.settle()
    assert made.entry.state is Placement.IN_PLACE
    assert said == ["binary", "entry put in", "entry taken out", "binary", "entry put in"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "has no CNI configuration"),
        (LIST, "has no entry of ours"),
        (LIST.replace("1.0.0", "9.0.0"), "does not speak"),
    ],
)
def test_what_keeps_the_entry_out_has_a_next_step(tmp_path: Path, text: str | None, words: str) -> None:
    if text:
        (tmp_path / "10-n.conflist").write_text(text)
    found = keeper.look(tmp_path)
    assert found.state is not Placement.IN_PLACE
    assert words in found.words
    assert "Next: " in found.words


def test_a_version_that_we_do_not_speak_is_no_place_for_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "10-n.conflist"
    path.write_text(LIST)
    keeper.put(tmp_path, entry("/run/x", "open"))
    path.write_text(path.read_text().replace("1.0.0", "9.0.0"))
    assert keeper.look(tmp_path).state is Placement.REFUSED


@pytest.mark.parametrize("policy", ["open", "closed", None, "ajar"])
def test_the_policy_of_the_entry_is_read(tmp_path: Path, policy: str | None) -> None:
    (tmp_path / "10-n.conflist").write_text(LIST)
    if policy:
        keeper.put(tmp_path, entry("/run/x", policy))
    assert keeper.policy(tmp_path) == (policy if policy in keeper.POLICIES else None)
