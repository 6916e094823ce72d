"""The same loss with tail loss probes switched off: the retransmission timeout has to repair it."""

from __future__ import annotations

from ackward.lab.scenario import Excuse, Scenario
from ackward.lab.scenarios import tail_loss
from ackward.model.causes import Cause

SCENARIO = Scenario(
    name="tail-loss-without-probe",
    summary="the end of an answer is lost and probes are off: the retransmission timeout repairs it",
    shape=tail_loss.SCENARIO.shape,
    cause=Cause.RETRANSMISSION_TIMEOUT,
    also=(Excuse(Cause.FAST_RETRANSMIT), Excuse(Cause.SLOW_START)),
    wan=tail_loss.SCENARIO.wan,
    sysctls={"net.ipv4.tcp_early_retrans": "0"},
)
