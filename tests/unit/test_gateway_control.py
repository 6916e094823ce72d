"""Gateways that start at the same moment, and what killed ones left."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from ackward.gateway import control


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "gateway"
    monkeypatch.setattr(control, "DIRECTORY", made)
    return made


def test_none_that_starts_takes_another_s_socket_for_a_dead_one(directory: Path) -> None:
    names = [f"g{number}" for number in range(8)]
    for _ in range(25):
        with ExitStack() as stack, ThreadPoolExecutor(len(names)) as pool:
            for made in pool.map(lambda name: control.Control(name, lambda _: {}), names):
                stack.callback(made.close)
            assert control.running() == names
    assert not directory.exists()


def test_what_killed_ones_left_goes_with_the_next_start(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(directory / "killed.sock"))
    assert control.running() == []
    made = control.Control("next", lambda _: {})
    assert [path.name for path in directory.iterdir()] == ["next.sock"]
    made.close()
