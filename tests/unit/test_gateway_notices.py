"""What a configuration costs is said at the start."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ackward.gateway.config import check
from ackward.gateway.notices import notices

LISTEN = "[[listen]]\naddress = '0.0.0.0:1'\ntarget = '192.0.2.1:1'\n"
EXIT = "[exit]\naddress = '0.0.0.0:2'\nnetworks = ['192.0.2.0/24']\n[peer.a]\nkeys = ['a.key']\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LISTEN + EXIT, []),
        ("workers = 2\n" + LISTEN, []),
        ("workers = 2\n" + EXIT, ["legs cannot be joined"]),
        (
            "workers = 2\n" + LISTEN + "answer = 'faithful'",
            ["listen.0: faithful listeners are served by the first"],
        ),
        (LISTEN + "[limits]\nconnections = 60000", ["a worker 100000 descriptors"]),
    ],
)
def test_what_degrades_is_said(text, said):
    told = list(notices(check(tomllib.loads(text), Path("gateway.toml")), 100_000))
    assert len(told) == len(said)
    assert all(words in line for words, line in zip(said, told, strict=True))
