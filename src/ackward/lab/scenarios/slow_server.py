"""Control: the server thinks for 40 ms, as long as a delayed ACK. Nothing is wrong with ACKs."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="slow-server",
    summary="control: the server itself needs 40 ms to answer",
    shape=Shape(nagle=False, latency=40),
    cause=Cause.SERVER,
    calm=("latency=0",),
)
