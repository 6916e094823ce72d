"""The whole diagnosis: segments -> flows -> exchanges -> claims -> partition -> findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ackward.diagnosis import causes
from ackward.diagnosis.counted import Counted, counted
from ackward.diagnosis.exchanges import Timeline, cut
from ackward.diagnosis.findings import findings, process_of
from ackward.diagnosis.flows import Flow, join
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.partition import CAUSES, Parts, settle
from ackward.diagnosis.segmented import Ints
from ackward.model.causes import Cause
from ackward.model.report import Capture, CauseTotal, FlowSummary, Report
from ackward.model.segments import Recording, Segments


@dataclass(frozen=True)
class Diagnosis:
    """The report, the elapsed time of each exchange in nanoseconds, and what both were made from.

    Exchanges that were only counted enter ``elapsed`` with their flow's mean: they were all faster than the threshold.
    They are neither in ``timeline`` nor in ``parts``.
    """

    report: Report
    elapsed: Ints
    timeline: Timeline
    parts: Parts


def diagnose(recording: Recording) -> Diagnosis:
    """Explain a live recording."""
    flows, segments = join(recording)
    capture = Capture(
        source=recording.source,
        seconds=round(recording.seconds, 3),
        flows=len(flows),
        segments=recording.segment_count,
        dropped_flows=recording.shed_flows,
        notes=list(recording.notes),
    )
    return explain(flows, segments, capture)


def explain(flows: Sequence[Flow], segments: Segments, capture: Capture) -> Diagnosis:
    """Explain the segments of flows, whatever their source, in order of flow and time."""
    timeline = cut(flows, segments)
    parts = partition(timeline)
    fast = [counted(flow) for flow in flows]
    means = [np.full(sums.exchanges, sums.elapsed_ns // max(sums.exchanges, 1), np.int64) for sums in fast]
    elapsed = np.concatenate([timeline.end - timeline.start, *means])
    report = Report(
        capture=capture,
        exchanges=timeline.count + sum(sums.exchanges for sums in fast),
        elapsed_ns=int((timeline.end - timeline.start).sum()) + sum(sums.elapsed_ns for sums in fast),
        causes=_totals(parts, fast),
        findings=findings(timeline, parts),
        flows=_summaries(timeline, parts, fast),
        latency_ns=_percentiles(elapsed),
    )
    return Diagnosis(report, elapsed, timeline, parts)


def _percentiles(elapsed: Ints) -> list[int]:
    """The 101 quantiles of a report's ``latency_ns``."""
    if not len(elapsed):
        return []
    rank = -(-len(elapsed) * np.arange(101) // 100)  # in whole numbers: 0.29 * 100 is not 29
    quantiles: list[int] = np.sort(elapsed)[np.maximum(rank, 1) - 1].tolist()
    return quantiles


def partition(timeline: Timeline) -> Parts:
    """Ask every cause for its claims and settle them."""
    waits = Waits(timeline)
    return settle(timeline, [claims for cause in causes.ALL for claims in cause(waits)])


def _totals(parts: Parts, fast: Sequence[Counted]) -> dict[Cause, CauseTotal]:
    totals: dict[Cause, CauseTotal] = {}
    for number, cause in enumerate(CAUSES):
        mine = parts.cause == number
        ns = int(parts.ns[mine].sum()) + sum(sums.causes.get(cause, 0) for sums in fast)
        if ns:
            # Parts are in order of exchange: each change of number is another exchange.
            places = parts.exchange[mine]
            exchanges = (
                int(len(places) > 0)
                + int(np.count_nonzero(np.diff(places)))
                + sum(sums.exchanges for sums in fast if sums.causes.get(cause))
            )
            totals[cause] = CauseTotal(ns=ns, exchanges=exchanges)
    return dict(sorted(totals.items(), key=lambda entry: -entry[1].ns))


def _summaries(timeline: Timeline, parts: Parts, fast: Sequence[Counted]) -> list[FlowSummary]:
    size = len(timeline.flows)
    exchanges = np.bincount(timeline.flow_of, minlength=size)
    elapsed = np.bincount(timeline.flow_of, weights=timeline.end - timeline.start, minlength=size).astype(
        np.int64
    )
    table = np.zeros((size, len(CAUSES)), np.int64)
    np.add.at(table, (timeline.flow_of[parts.exchange], parts.cause), parts.ns)
    rows = []
    for number, (flow, sums) in enumerate(zip(timeline.flows, fast, strict=True)):
        for cause, ns in sums.causes.items():
            table[number, CAUSES.index(cause)] += ns
        total = int(elapsed[number]) + sums.elapsed_ns
        rows.append(
            _summary(
                flow, int(exchanges[number]) + sums.exchanges, total, CAUSES[int(table[number].argmax())]
            )
        )
    return sorted(rows, key=lambda row: -row.elapsed_ns)


def _summary(flow: Flow, exchanges: int, elapsed: int, worst: Cause) -> FlowSummary:
    return FlowSummary(
        client=str(flow.client),
        server=str(flow.server),
        client_process=process_of(flow.client_end),
        server_process=process_of(flow.server_end),
        seen_from=flow.seen_from,
        protocol="mptcp" if flow.mptcp else "tcp",
        exchanges=exchanges,
        elapsed_ns=elapsed,
        bytes_to_server=flow.bytes_to_server,
        bytes_to_client=flow.bytes_to_client,
        worst_cause=worst if exchanges else None,
    )
