"""Twin of ``standoff``: a program with TCP_NODELAY that itself waits for the ACK of its first write.

Nagle's algorithm has no part in it, and TCP_NODELAY no effect; on the wire it looks the same.
"""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.model.causes import Cause, Grade

SCENARIO = Scenario(
    name="draining-writer",
    summary="control: without Nagle, the client itself waits for the ACK (SIOCOUTQ) between its writes",
    shape=Shape(nagle=False, drain=True, rounds=30),
    cause=Cause.CLIENT,
    also=(Excuse(Cause.STANDOFF, Grade.INFERRED),),
    calm=("drain=off",),
)
