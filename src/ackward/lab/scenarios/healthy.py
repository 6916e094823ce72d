"""Control: the load of ``standoff`` from a program that sets TCP_NODELAY. Nothing is wrong."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="healthy",
    summary="control: the same load with TCP_NODELAY, nothing is wrong",
    shape=Shape(nagle=False),
    cause=Cause.SERVER,
)
