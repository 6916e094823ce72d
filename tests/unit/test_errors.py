"""Errors pass from process to process whole, and say what a user needs."""

from __future__ import annotations

import pickle

import pytest

from ackward import errors
from ackward.errors import AckwardError, ProgramRejected


def _kinds(kind: type[AckwardError] = AckwardError) -> list[type[AckwardError]]:
    return [kind, *(below for each in kind.__subclasses__() for below in _kinds(each))]


@pytest.mark.parametrize("kind", [kind for kind in _kinds() if kind.__module__ == errors.__name__])
def test_every_kind_survives_being_pickled(kind: type[AckwardError]) -> None:
    error = kind("no key", consequence="nothing was started", next_step="make one")
    restored = pickle.loads(pickle.dumps(error))
    assert type(restored) is kind
    assert restored.as_json() == error.as_json()
    assert str(restored) == "no key. Nothing was started. Next: make one."


def test_what_a_kind_adds_survives_too() -> None:
    rejected = ProgramRejected("refused", consequence="none", next_step="look", log="R1 is a scalar")
    assert pickle.loads(pickle.dumps(rejected)).log == "R1 is a scalar"
