"""Pinned sockets: the scope of their rule, and the two changes that only they need."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ackward.model.report import Model


class ProcessPins(Model):
    """The sockets that one process has pinned. ``start_time``, in clock ticks since boot, tells a reused PID."""

    kind: Literal["pins"] = "pins"
    pid: int
    start_time: int

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        return f"pinned sockets of process {self.pid}"


class MarkRuleAdded(Model):
    """Our rule that sends packets with one bit in their mark to our table."""

    kind: Literal["mark-rule-added"] = "mark-rule-added"
    family: Literal[4, 6]
    preference: int
    bit: int = Field(description="the mark and its mask: a single bit")
    table: int

    @property
    def words(self) -> str:
        """The change in a user's words."""
        matching = f"fwmark {self.bit:#x}/{self.bit:#x}"
        return f"add the IPv{self.family} rule {self.preference}: {matching} lookup {self.table}"


class KeeperStarted(Model):
    """The process that takes all back when the pinning process has ended.

    ``start_time``, in clock ticks since boot, tells a PID that was given out again.
    """

    kind: Literal["keeper"] = "keeper"
    owner: int
    owner_start_time: int
    pid: int | None = None
    start_time: int | None = None

    @property
    def words(self) -> str:
        """The change in a user's words."""
        keeper = f" (pid {self.pid})" if self.pid else ""
        return f"start a process that takes this back when process {self.owner} has ended{keeper}"
