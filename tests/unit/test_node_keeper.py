"""The keeper of the entry where the kernel has no inotify to give, and what it says once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.polling import eventually

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
