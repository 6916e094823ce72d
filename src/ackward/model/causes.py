"""The closed list of causes and how sure a claim about one can be.

A *cause* is what an interval of an exchange was spent on. The list is the project's vocabulary: code, reports
and documents use these words and no others.
"""

from __future__ import annotations

import enum


class Cause(enum.StrEnum):
    """What a nanosecond of an exchange was spent on."""

    HANDSHAKE = "handshake"
    NETWORK = "network"
    STANDOFF = "standoff"
    NAGLE = "nagle"
    DELAYED_ACK = "delayed-ack"
    ACK_HOLDING = "ack-holding"
    TAIL_LOSS_PROBE = "tail-loss-probe"
    RETRANSMISSION_TIMEOUT = "retransmission-timeout"
    FAST_RETRANSMIT = "fast-retransmit"
    SLOW_START = "slow-start"
    IDLE_RESTART = "idle-restart"
    CONGESTION_WINDOW = "congestion-window"
    PACING = "pacing"
    RECEIVE_WINDOW = "receive-window"
    HOST_QUEUE = "host-queue"
    ACCEPT_QUEUE = "accept-queue"
    CLIENT = "client"
    SERVER = "server"
    UNKNOWN = "unknown"


class Grade(enum.StrEnum):
    """How a claim is known.

    ``OBSERVED``: a kernel told us (the time of a write, the timer that fired). ``INFERRED``: from the timing of
    segments alone. ``UNKNOWN``: no claim could be made.
    """

    OBSERVED = "observed"
    INFERRED = "inferred"
    UNKNOWN = "unknown"


class End(enum.StrEnum):
    """One end of a flow. The client is the end that sent the SYN."""

    CLIENT = "client"
    SERVER = "server"


#: Causes that are a wait on a rule of TCP rather than on work or distance, and so can become findings.
STALLS = frozenset(Cause) - {Cause.NETWORK, Cause.HANDSHAKE, Cause.CLIENT, Cause.SERVER, Cause.UNKNOWN}
