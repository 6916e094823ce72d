"""Namespaces are found while others remove them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ackward.errors import UnknownName
from ackward.kernel import namespaces


def test_a_name_that_goes_while_it_is_looked_at_is_unknown_or_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ip netns delete`` in between: never an error of the file system."""
    monkeypatch.setattr(namespaces, "NAMED", tmp_path)
    name = tmp_path / "pod"
    stat = Path.stat

    def looked_at(path: Path, *, follow_symlinks: bool = True) -> object:
        found = stat(path, follow_symlinks=follow_symlinks)
        if path == name:
            path.unlink()  # right after the first look
        return found

    name.touch()
    monkeypatch.setattr(Path, "stat", looked_at)
    with pytest.raises(UnknownName, match="nothing is mounted on it"):
        namespaces.resolve("pod")
    with pytest.raises(UnknownName, match="there is no network namespace"):
        namespaces.resolve("pod")
