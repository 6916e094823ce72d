"""One module a cause, all of one shape: ``claims(waits) -> list[Claims]``. To add a cause, add a module and a line."""

from __future__ import annotations

from collections.abc import Callable

from ackward.diagnosis.causes import (
    accept_queue,
    ack_holding,
    client,
    congestion_window,
    delayed_ack,
    fast_retransmit,
    handshake,
    host_queue,
    idle_restart,
    nagle,
    network,
    pacing,
    receive_window,
    retransmission_timeout,
    server,
    slow_start,
    standoff,
    tail_loss_probe,
)
from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits

#: The order does not matter: the partition's priorities decide.
ALL: tuple[Callable[[Waits], list[Claims]], ...] = (
    accept_queue.claims,
    ack_holding.claims,
    pacing.claims,
    retransmission_timeout.claims,
    tail_loss_probe.claims,
    fast_retransmit.claims,
    standoff.claims,
    nagle.claims,
    delayed_ack.claims,
    slow_start.claims,
    idle_restart.claims,
    congestion_window.claims,
    receive_window.claims,
    host_queue.claims,
    handshake.claims,
    client.claims,
    server.claims,
    network.claims,
)
