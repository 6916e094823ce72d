"""A connection that rested longer than its retransmission timeout forgets its window (tcp_cwnd_restart())."""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.lab.wan import Wan
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="idle-restart",
    summary="60 kB after each rest of 1 s: the window starts small again",
    shape=Shape(nagle=False, answer=60_000, rest=1000, rounds=5, congestion="cubic"),
    cause=Cause.IDLE_RESTART,
    remedy="initcwnd",
    also=(Excuse(Cause.SLOW_START),),
    wan=Wan.of(20),
    sysctls={"net.ipv4.tcp_slow_start_after_idle": "1"},
    calm=("rest=0",),
    warmup=1,
)
