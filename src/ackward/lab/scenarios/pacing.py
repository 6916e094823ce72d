"""The server's program limits its own rate with SO_MAX_PACING_RATE: the kernel spreads the segments."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Scenario
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="pacing",
    summary="60 kB paced at 1 MB/s by the server's own socket option",
    shape=Shape(nagle=False, answer=60_000, rounds=10, pacing=1_000_000, congestion="cubic"),
    cause=Cause.PACING,
    holding_end=End.SERVER,
    calm=("pacing=0",),
)
