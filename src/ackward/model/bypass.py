"""The bypass: in what a joined connection may differ from TCP, and what a self-test of this kernel found.

Each hazard is a way in which projects that join sockets have lost, reordered, hung or surprised. The self-test tries
each on the kernel that runs, with the engine that would be used; a plan consults what it found.
"""

from __future__ import annotations

import enum
from typing import Literal

from pydantic import Field

from ackward.model.report import Model


class Hazard(enum.StrEnum):
    """Names as ``--accept`` takes them."""

    FIONREAD = "fionread"
    BLOCKED_READER = "blocked-reader"
    WAITALL = "waitall"
    ORDER = "order"
    HALF_CLOSE = "half-close"
    SHUT_READ = "shut-read"
    CLOSE_UNREAD = "close-unread"
    SLOW_READER = "slow-reader"
    SPLICE = "splice"
    EPOLL_LEVEL = "epoll-level"
    EPOLL_EDGE = "epoll-edge"
    PEEK = "peek"
    PEEK_OFFSET = "peek-offset"
    RCVLOWAT = "rcvlowat"
    RCVTIMEO = "rcvtimeo"
    OOB = "oob"
    TRUNC = "trunc"
    SCATTERED = "scattered"
    SENDFILE = "sendfile"
    CORK = "cork"
    INQ = "inq"
    MPTCP = "mptcp"
    FAST_OPEN = "fast-open"
    DEFER_ACCEPT = "defer-accept"
    RESET = "reset"
    RECONNECT = "reconnect"
    ZEROCOPY_SEND = "zerocopy-send"
    ZEROCOPY_RECEIVE = "zerocopy-receive"
    KTLS = "ktls"
    RACE = "race"
    UNDO = "undo"
    WAKEUP = "wakeup"


class Outcome(enum.StrEnum):
    """``SAME``: a program cannot tell. ``MITIGATED``: nor here, as the engine keeps such connections on TCP."""

    SAME = "same as TCP"
    MITIGATED = "mitigated"
    DIFFERS = "differs"


class Finding(Model):
    """One hazard as it was met on this kernel. ``measured``: what was seen, in words and numbers."""

    hazard: Hazard
    outcome: Outcome
    measured: str


class Capabilities(Model):
    """What the self-test found, for this boot: /run/ackward/capabilities/bypass.json."""

    schema_: Literal["ackward/bypass-capabilities/1"] = Field(
        default="ackward/bypass-capabilities/1", alias="schema"
    )
    kernel: str = Field(description="uname -r")
    boot_id: str
    engine: str = Field(description="which build of the program it was tried with: SHA-256 of the object")
    tried: str = Field(description="ISO 8601, UTC")
    findings: tuple[Finding, ...]

    def differing(self, accepted: frozenset[Hazard] = frozenset()) -> tuple[Finding, ...]:
        """The findings that differ from TCP and were not accepted by name."""
        return tuple(
            finding
            for finding in self.findings
            if finding.outcome is Outcome.DIFFERS and finding.hazard not in accepted
        )

    def untried(self) -> tuple[Hazard, ...]:
        """Hazards that this self-test did not try."""
        tried = {finding.hazard for finding in self.findings}
        return tuple(hazard for hazard in Hazard if hazard not in tried)

    def to_json(self) -> str:
        """The form in which it is kept and printed."""
        return self.model_dump_json(by_alias=True, indent=2)
