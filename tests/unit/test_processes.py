"""Who a cgroup is, while cgroups come and go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ackward.kernel import processes


def test_a_cgroup_that_is_removed_while_they_are_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("going", "staying"):
        (tmp_path / name).mkdir()
    staying = (tmp_path / "staying").stat().st_ino
    walk = os.walk

    def walked(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(top):
            if Path(found[0]).name == "going":
                Path(found[0]).rmdir()
            yield found

    monkeypatch.setattr(os, "walk", walked)
    monkeypatch.setattr(processes, "cgroup2_mount", lambda: tmp_path)
    processes._cgroup_paths.cache_clear()
    try:
        assert processes.cgroup_path(staying) == "staying"
    finally:
        processes._cgroup_paths.cache_clear()
