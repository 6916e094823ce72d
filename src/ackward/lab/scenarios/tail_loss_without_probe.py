"""The same loss with tail loss probes switched off: the retransmission timeout has to repair it.

It sends the older segment first: to the client it looks like a server that pauses in the middle of its answer.
"""

from __future__ import annotations

from ackward.lab.scenario import Excuse, Scenario
from ackward.lab.scenarios import tail_loss
from ackward.model.causes import Cause, End

SCENARIO = Scenario(
    name="tail-loss-without-probe",
    summary="the end of an answer is lost and probes are off: the retransmission timeout repairs it",
    shape=tail_loss.SCENARIO.shape,
    cause=Cause.RETRANSMISSION_TIMEOUT,
    also=(Excuse(Cause.FAST_RETRANSMIT), Excuse(Cause.SLOW_START)),
    seen_from={End.CLIENT: Cause.UNKNOWN},
    wan=tail_loss.SCENARIO.wan,
    sysctls={"net.ipv4.tcp_early_retrans": "0"},
)
