"""A link that forwards one pure ACK of sixteen, or the newest after 40 ms, like a receiver that holds its ACKs.

The sender runs out of window, and its tail loss probes fire though nothing was lost. The server sees
all its ACKs leave in time; who holds them is told by the client's side alone.
"""

from __future__ import annotations

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.lab.wan import Line, Wan
from ackward.model.causes import Cause, End, Grade

SCENARIO = Scenario(
    name="ack-thinning",
    summary="one ACK for sixteen segments, or after 40 ms: the sender's window stands still",
    shape=Shape(nagle=False, pings=1, sizes=(60_000,), reconnect=True, rounds=5, congestion="cubic"),
    cause=Cause.ACK_HOLDING,
    holding_end=End.CLIENT,
    seen_from={End.SERVER: Cause.UNKNOWN},
    also=(
        Excuse(Cause.TAIL_LOSS_PROBE),
        Excuse(Cause.SLOW_START),
        Excuse(Cause.CONGESTION_WINDOW),
        Excuse(Cause.DELAYED_ACK, Grade.INFERRED),
    ),
    wan=Wan(Line(10), Line(10, thin=16, thin_hold=40)),
)
