"""The last two segments of an answer are lost; nothing follows that could tell the sender, so its probe timer does.

Two, because with one left the probe waits as long as the retransmission timeout (tcp_schedule_loss_probe()).
"""

from __future__ import annotations

from dataclasses import replace

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.lab.wan import Line, Loss, Wan
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="tail-loss",
    summary="the end of an answer is lost, a tail loss probe repairs it after two round trips",
    shape=Shape(nagle=False, answer=8688, reconnect=True, rounds=8, congestion="cubic"),
    cause=Cause.TAIL_LOSS_PROBE,
    also=(Excuse(Cause.FAST_RETRANSMIT),),
    wan=replace(
        Wan.of(20), to_client=Line(20, losses=(Loss("data", at=8688 - 2 * 1448, length=2 * 1448, every=2),))
    ),
)
