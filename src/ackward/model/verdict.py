"""Measurements and verdicts: what the clock says before and after."""

from __future__ import annotations

import enum

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


class Verdict(Model):
    """Before and after.

    ``ratio`` is median(after) / median(before) with its ``confidence`` (0..1) interval ``ratio_low`` .. ``ratio_high``.
    """

    result: Result
    before: Measure
    after: Measure
    ratio: float
    ratio_low: float
    ratio_high: float
    confidence: float = 0.95
    words: str


class Phase(Model):
    """One measured phase of a lab run: how the scenario's own client saw it, and what ackward saw of it."""

    name: str
    measure: Measure
    report: Report
