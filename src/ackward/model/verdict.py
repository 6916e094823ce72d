"""Measurements and verdicts: what the clock says before and after."""

from __future__ import annotations

import enum

from pydantic import Field

from ackward.model.load import Load
from ackward.model.report import Model, Report


class Result(enum.StrEnum):
    """What the comparison of two measurements says."""

    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    WORSE = "worse"


class Measure(Model):
    """The latencies of one measured phase, in nanoseconds. ``slow`` counts rounds above ``slow_above_ns``."""

    p50_ns: int
    p99_ns: int
    rounds: int
    slow: int
    slow_above_ns: int = 30_000_000


class GuardState(enum.StrEnum):
    """What a guard against harm says. ``SILENT``: it saw too little to say anything."""

    FINE = "fine"
    HARMED = "harmed"
    SILENT = "too little data"


class Guard(Model):
    """One thing that a remedy must not harm, in both phases; null where too little of it was seen."""

    name: str = Field(
        description="acks, retransmissions, cpu, latency; of a bypass failures and throughput too"
    )
    unit: str = Field(description="of before and after")
    before: float | None
    after: float | None
    state: GuardState
    words: str


class Verdict(Model):
    """Before and after.

    ``ratio`` is median(after) / median(before) with its ``confidence`` (0..1) interval ``ratio_low`` .. ``ratio_high``.
    If a guard was harmed, the result is ``worse``, whatever the ratio is.
    """

    result: Result
    before: Measure
    after: Measure
    ratio: float
    ratio_low: float
    ratio_high: float
    confidence: float = 0.95
    words: str
    guards: tuple[Guard, ...] = ()


class Phase(Model):
    """One measured phase: the latencies, what ackward saw of it, and what the host did meanwhile if that was asked."""

    name: str
    measure: Measure
    report: Report
    load: Load | None = None
