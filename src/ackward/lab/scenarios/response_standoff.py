"""The stall the other way round: the server holds half an answer, the client delays the ACK."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="response-standoff",
    summary="the server writes its answer in two pieces with Nagle on, the client delays its ACKs",
    shape=Shape(pings=1, pongs=2, nagle=False, server_nagle=True),
    cause=Cause.STANDOFF,
    remedy="quickack",
    holding_end=End.SERVER,
    delaying_end=End.CLIENT,
    calm=("server_nagle=off",),
)
