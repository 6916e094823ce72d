"""The case that made the stall known: Ruby wrote a request's headers and body separately, to HAProxy.

HAProxy, and the HTTP server behind it, are real. HAProxy's host delays the ACK of the headers, because there is nothing
to answer before the body is there.
"""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="haproxy",
    summary="HTTP headers and body in two writes, Nagle on, through a real HAProxy",
    shape=Shape(http=True, sizes=(200, 300), answer=200, rounds=40),
    cause=Cause.STANDOFF,
    remedy="quickack",
    holding_end=End.CLIENT,
    delaying_end=End.SERVER,
    calm=("nagle=off",),
)
