"""Nagle's algorithm alone: the server acknowledges at once, but the ACK is a round trip of 40 ms away."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.lab.wan import Wan
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="nagle",
    summary="a request in two writes, Nagle on, over 40 ms: each hold costs a round trip though ACKs come at once",
    shape=Shape(rounds=12, congestion="cubic"),
    cause=Cause.NAGLE,
    holding_end=End.CLIENT,
    wan=Wan.of(20),
    server_metrics=("quickack", "1"),
    calm=("nagle=off",),
)
