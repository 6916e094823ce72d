"""An answer of one segment is lost, and its first retransmission, the probe, as well.

To the client it looks like a server that takes its time.
"""

from __future__ import annotations

from dataclasses import replace

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.lab.wan import Line, Loss, Wan
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="retransmission-timeout",
    summary="an answer of one segment is lost twice: the retransmission timeout repairs it",
    shape=Shape(nagle=False, reconnect=True, rounds=6, congestion="cubic"),
    cause=Cause.RETRANSMISSION_TIMEOUT,
    also=(Excuse(Cause.TAIL_LOSS_PROBE),),
    seen_from={End.CLIENT: Cause.UNKNOWN},
    wan=replace(Wan.of(10), to_client=Line(10, losses=(Loss("data", times=2, every=2),))),
)
