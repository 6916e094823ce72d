"""Control: the client computes for 60 ms between its two writes with Nagle on.

The server's delayed ACK arrives meanwhile, so that nothing is held: the wait is the client's own.
"""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="late-writer-nagle",
    summary="control: the client computes for 60 ms between its two writes, Nagle on and without effect",
    shape=Shape(pause=60),
    cause=Cause.CLIENT,
    calm=("pause=0", "nagle=off"),
)
