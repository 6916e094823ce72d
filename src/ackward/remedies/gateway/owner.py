"""The gateway that a receipt is for: a process, which may have ended without taking its changes back."""

from __future__ import annotations

from ackward.kernel import background
from ackward.model.gateways import GatewayScope


def lives(scope: GatewayScope) -> bool:
    """Whether that process runs; another one with its PID is not meant."""
    return background.start_time_of(scope.pid) == scope.start_time
