"""Control: the client computes for 40 ms between its two writes. On the wire it looks like a hold, and is none."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.model.causes import Cause, Grade

SCENARIO = Scenario(
    name="late-writer",
    summary="control: the client computes for 40 ms between its two writes",
    shape=Shape(nagle=False, pause=40),
    cause=Cause.CLIENT,
    also=(Excuse(Cause.STANDOFF, Grade.INFERRED),),
    calm=("pause=0",),
)
