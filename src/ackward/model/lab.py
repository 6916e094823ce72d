"""What ``lab run --json`` prints: the report of the first phase, with the measurements beside it."""

from __future__ import annotations

from ackward.model.report import Report
from ackward.model.verdict import Measure, Result, Verdict


class LabReport(Report):
    """A report with the scenario, its settings, the two measured phases and the verdict.

    The inherited fields are the diagnosis of the first phase; ``report_after`` is that of the second.
    """

    scenario: str
    settings: dict[str, object]
    fix: str | None
    before: Measure
    after: Measure
    verdict: Result
    comparison: Verdict
    report_after: Report
