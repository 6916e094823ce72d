"""The first SYN of every second connection is lost: one second until it is sent again (RFC 6298, section 2.1).

The server never saw the SYN that was lost: its view begins with the second one.
"""

from __future__ import annotations

from dataclasses import replace

from ackward.lab.peer import Shape
from ackward.lab.scenario import Excuse, Scenario
from ackward.lab.wan import Line, Loss, Wan
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="syn-loss",
    summary="the first SYN is lost: connecting takes a second longer",
    shape=Shape(nagle=False, reconnect=True, rounds=4, congestion="cubic"),
    cause=Cause.RETRANSMISSION_TIMEOUT,
    also=(Excuse(Cause.HANDSHAKE),),
    seen_from={End.SERVER: Cause.HANDSHAKE},
    wan=replace(Wan.of(10), to_server=Line(10, losses=(Loss("syn", every=2),))),
    margin=200,
)
