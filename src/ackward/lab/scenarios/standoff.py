"""The stall itself: a request in two writes, Nagle on, against a server that delays its ACKs."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="standoff",
    summary="Nagle's algorithm against delayed ACKs: 44 ms on every request",
    shape=Shape(),
    cause=Cause.STANDOFF,
    remedy="quickack",
)
