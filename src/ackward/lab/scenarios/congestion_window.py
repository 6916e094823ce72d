"""A loss early on leaves a small window that grows slowly: later answers take several round trips."""

from __future__ import annotations

from dataclasses import replace

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.lab.wan import Line, Loss, Wan
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="congestion-window",
    summary="150 kB at 40 ms round trip with the window that an early loss left behind",
    shape=Shape(nagle=False, answer=150_000, rounds=6, congestion="cubic"),
    cause=Cause.CONGESTION_WINDOW,
    also=(Excuse(Cause.SLOW_START), Excuse(Cause.FAST_RETRANSMIT)),
    wan=replace(Wan.of(20), to_client=Line(20, losses=(Loss("data", at=30_000),))),
    calm=("answer=1000",),
    warmup=1,
)
