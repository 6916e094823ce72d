"""A sender out of window waits for an ACK that is being delayed: after a rest the window has room for one segment.

``initcwnd 1`` and a rest longer than the retransmission timeout put the window back to one segment before each round
(tcp_cwnd_restart()); the receiver delays the ACK of a single segment.
Both segments of a request are full, so that Nagle's algorithm has no part in it.
"""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="delayed-ack",
    summary="the client may have one segment outstanding after a rest, and the server delays its ACK",
    shape=Shape(pings=1, sizes=(2 * 1448,), nagle=False, congestion="cubic", rest=300, rounds=8),
    cause=Cause.DELAYED_ACK,
    remedy="quickack",
    holding_end=End.CLIENT,
    delaying_end=End.SERVER,
    also=(Excuse(Cause.IDLE_RESTART), Excuse(Cause.SLOW_START), Excuse(Cause.CONGESTION_WINDOW)),
    sysctls={"net.ipv4.tcp_slow_start_after_idle": "1"},
    client_metrics=("initcwnd", "1"),
)
