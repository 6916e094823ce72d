"""The whole diagnosis: segments -> flows -> exchanges -> claims -> partition -> findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ackward.diagnosis.attribution import Attribution
from ackward.diagnosis.counted import Counted, counted
from ackward.diagnosis.findings import findings, process_of
from ackward.diagnosis.flows import Flow, join
from ackward.diagnosis.partition import CAUSES
from ackward.diagnosis.same_host import services
from ackward.diagnosis.segmented import Ints
from ackward.diagnosis.traffic import Traffic
from ackward.model.causes import Cause
from ackward.model.report import Capture, CauseTotal, FlowSummary, Report
from ackward.model.segments import Recording

#: Of longer captures only those who ask for the table of flows hear which stay within a host.
FEW_FLOWS = 10_000


@dataclass(frozen=True)
class Diagnosis:
    """What was found, the elapsed time of each exchange in nanoseconds, and where that time went.

    Exchanges that were only counted enter ``elapsed`` with their flow's mean: they were all faster than the threshold.
    They are not in ``attribution``, but in ``fast``, by flow. ``brief`` is the report without its table of flows: a
    capture may have hundreds of thousands, and few readers ask for them.
    """

    brief: Report
    elapsed: Ints
    attribution: Attribution
    fast: Mapping[int, Counted]

    @cached_property
    def report(self) -> Report:
        """The whole report."""
        return self.brief.model_copy(
            update={
                "flows": _summaries(self.attribution, self.fast),
                "same_host": self.brief.same_host or services(self.attribution, self.fast),
            }
        )


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
    fast = {number: sums for number, flow in enumerate(flows) if (sums := counted(flow)).exchanges}
    return explain(Traffic.of(flows, segments), capture, fast)


def explain(traffic: Traffic, capture: Capture, fast: Mapping[int, Counted] | None = None) -> Diagnosis:
    """Explain traffic, whatever its source. ``fast`` are the exchanges that were only counted, by flow."""
    seen, fast = Attribution.of(traffic), fast or {}
    means = [np.full(sums.exchanges, sums.elapsed_ns // sums.exchanges, np.int64) for sums in fast.values()]
    recorded = seen.exchanges.elapsed
    elapsed = np.concatenate([recorded, *means])
    brief = Report(
        capture=capture,
        exchanges=len(elapsed),
        elapsed_ns=int(recorded.sum()) + sum(sums.elapsed_ns for sums in fast.values()),
        causes=_totals(seen, list(fast.values())),
        findings=findings(seen),
        same_host=services(seen, fast) if len(seen.traffic.flows) <= FEW_FLOWS else [],
        latency_ns=percentiles(elapsed),
    )
    return Diagnosis(brief, elapsed, seen, fast)


def percentiles(elapsed: Ints) -> list[int]:
    """The 101 quantiles of a report's ``latency_ns``."""
    if not len(elapsed):
        return []
    rank = -(-len(elapsed) * np.arange(101) // 100)  # in whole numbers: 0.29 * 100 is not 29
    quantiles: list[int] = np.sort(elapsed)[np.maximum(rank, 1) - 1].tolist()
    return quantiles


def _totals(seen: Attribution, fast: Sequence[Counted]) -> dict[Cause, CauseTotal]:
    parts, length = seen.parts, seen.parts.ns
    totals: dict[Cause, CauseTotal] = {}
    for number, cause in enumerate(CAUSES):
        mine = parts.cause == number
        ns = int(length[mine].sum()) + sum(sums.causes.get(cause, 0) for sums in fast)
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


def _summaries(seen: Attribution, fast: Mapping[int, Counted]) -> list[FlowSummary]:
    exchanges, parts, size = seen.exchanges, seen.parts, len(seen.traffic.flows)
    table = np.zeros((size, len(CAUSES)), np.int64)
    np.add.at(table.reshape(-1), seen.flow_of * len(CAUSES) + parts.cause, parts.ns)
    count = np.bincount(exchanges.flow_of, minlength=size)
    for number, sums in fast.items():
        for cause, ns in sums.causes.items():
            table[number, CAUSES.index(cause)] += ns
        count[number] += sums.exchanges
    # The parts of an exchange add up to its length.
    elapsed = table.sum(axis=1)
    worst = table.argmax(axis=1) if size else np.zeros(0, np.int64)
    order = np.argsort(-elapsed, kind="stable")
    measures = seen.measures
    columns = (count, elapsed, worst, measures.retransmissions, measures.rtt, measures.ack_rtt)
    return [
        _summary(seen.traffic.flows[number], *row)
        for number, *row in zip(order.tolist(), *(column[order].tolist() for column in columns), strict=True)
    ]


def _summary(
    flow: Flow, exchanges: int, elapsed: int, worst: int, retransmissions: int, rtt: int, ack_rtt: int
) -> FlowSummary:
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
        retransmissions=retransmissions,
        rtt_ns=rtt if rtt >= 0 else None,
        ack_rtt_ns=ack_rtt if ack_rtt >= 0 else None,
        worst_cause=CAUSES[worst] if exchanges else None,
    )
