"""A hole in the middle of a flight: the segments behind it make the receiver ask for it."""

from __future__ import annotations

from dataclasses import replace

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.lab.wan import Line, Loss, Wan
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="fast-retransmit",
    summary="one segment in the middle of an answer is lost and repaired within a round trip",
    shape=Shape(nagle=False, answer=8 * 1448, reconnect=True, rounds=10, congestion="cubic"),
    cause=Cause.FAST_RETRANSMIT,
    wan=replace(Wan.of(20), to_client=Line(20, losses=(Loss("data", at=2 * 1448, every=2),))),
)
