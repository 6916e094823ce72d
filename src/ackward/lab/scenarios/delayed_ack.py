"""A sender out of window waits for an ACK that is being delayed: the window has room for one segment."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="delayed-ack",
    summary="the client may have one segment outstanding, and the server delays its ACK",
    shape=Shape(pings=1, sizes=(2000,), nagle=False, congestion="cubic"),
    cause=Cause.DELAYED_ACK,
    remedy="quickack",
    holding_end=End.CLIENT,
    delaying_end=End.SERVER,
    also=(Excuse(Cause.CONGESTION_WINDOW),),
    client_metrics=("cwnd", "lock", "1"),
    calm=("nagle=off",),
)
