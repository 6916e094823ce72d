"""The stall itself: a request in two writes, Nagle on, against a server that delays its ACKs."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="standoff",
    summary="Nagle's algorithm against delayed ACKs: 44 ms on every request",
    shape=Shape(),
    cause=Cause.STANDOFF,
    remedy="quickack",
    holding_end=End.CLIENT,
    delaying_end=End.SERVER,
    calm=("nagle=off",),
)
