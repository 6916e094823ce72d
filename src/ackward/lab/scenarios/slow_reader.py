"""Control: the client lets an answer wait in its socket for 60 ms; the window has room for all of it."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="slow-reader",
    summary="control: the client leaves each answer unread for 60 ms, the window has room for it",
    shape=Shape(nagle=False, answer=20_000, read_pause=60, rounds=12),
    cause=Cause.CLIENT,
    calm=("read_pause=0",),
)
