"""A fresh connection may send ten segments and doubles that each round trip: 100 kB take three."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.lab.wan import Wan
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="slow-start",
    summary="100 kB on fresh connections at 80 ms round trip: two more round trips until the window is there",
    shape=Shape(nagle=False, answer=100_000, reconnect=True, rounds=5, congestion="cubic"),
    cause=Cause.SLOW_START,
    remedy="initcwnd",
    wan=Wan.of(40),
    calm=("answer=1000",),
)
