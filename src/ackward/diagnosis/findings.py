"""The partition to findings: the causes that cost enough to mention, grouped by who talks to whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.claims import NO_END
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.flows import Flow
from ackward.diagnosis.ladder import draw
from ackward.diagnosis.partition import CAUSES, Parts
from ackward.diagnosis.segmented import Ints
from ackward.diagnosis.sequence import plot
from ackward.diagnosis.words import Loss, quantile, remedies, why
from ackward.model.causes import STALLS, Cause, End, Grade
from ackward.model.report import Finding, Ladder, Process, Quantiles
from ackward.model.segments import Owner, SocketFacts, Vantage

#: A finding must have cost this share of its flows' time and this much a stalled exchange: below, it is noise...
WORTH_SHARE = 0.01
WORTH_NS = 1_000_000
#: ...unless an ACK rule took this share of very fast exchanges, and not just once.
ACK_RULES = frozenset({Cause.STANDOFF, Cause.NAGLE, Cause.DELAYED_ACK})
ACK_SHARE = 0.10
ACK_EXCHANGES = 3

_END = {Vantage.CLIENT: End.CLIENT, Vantage.SERVER: End.SERVER}


@dataclass(frozen=True)
class _Group:
    """The parts of one finding: indices into the partition, and the flow that stands for all."""

    cause: Cause
    flows: tuple[int, ...]
    parts: Ints
    holding: End | None
    delaying: End | None


def process_of(socket: SocketFacts | None) -> Process | None:
    """Who owns an end, for a report."""
    if socket is None:
        return None
    owner: Owner = socket.owner
    return Process(pid=owner.pid, command=owner.command, container=owner.container, netns=owner.netns_name)


def _who(flow: Flow) -> tuple[object, ...]:
    """Flows with the same answer are alike: the same two hosts and programs and the same service."""
    ends = (flow.client_end, flow.server_end)
    owners = tuple((end.owner.netns, end.owner.command, end.owner.container) if end else None for end in ends)
    return (flow.client.address, flow.server, *owners)


def _end(vantage: int) -> End | None:
    return None if vantage == NO_END else _END[Vantage(vantage)]


def _groups(timeline: Timeline, parts: Parts) -> Iterator[_Group]:
    stalls = np.flatnonzero(np.isin(parts.cause, [CAUSES.index(cause) for cause in STALLS]))
    if not len(stalls):
        return
    alike: dict[tuple[object, ...], int] = {}
    kin = np.array([alike.setdefault(_who(flow), len(alike)) for flow in timeline.flows])
    flow = timeline.flow_of[parts.exchange[stalls]]
    key = np.stack((parts.cause[stalls], kin[flow], parts.holding[stalls], parts.delaying[stalls]))
    _, label = np.unique(key, axis=1, return_inverse=True)
    for number in range(int(label.max()) + 1):
        mine = label == number
        members = stalls[mine]
        first = members[0]
        yield _Group(
            CAUSES[int(parts.cause[first])],
            tuple(int(index) for index in np.unique(flow[mine])),
            members,
            _end(int(parts.holding[first])),
            _end(int(parts.delaying[first])),
        )


def findings(timeline: Timeline, parts: Parts) -> list[Finding]:
    """All findings, the costliest first."""
    found = [finding for group in _groups(timeline, parts) if (finding := _finding(timeline, parts, group))]
    return sorted(found, key=lambda finding: -finding.lost_ns.total)


def _finding(timeline: Timeline, parts: Parts, group: _Group) -> Finding | None:
    exchanges, place = np.unique(parts.exchange[group.parts], return_inverse=True)
    stalled = np.bincount(place, weights=parts.ns[group.parts]).astype(np.int64)
    loss = Loss(stalled, timeline.min_rtt[exchanges], group.holding, group.delaying)
    flow = timeline.flows[group.flows[0]]
    options = remedies(group.cause, loss, flow)
    lost = options[0][1] if options else stalled
    best = max((saves for _, saves in options), key=lambda saves: int(saves.sum()), default=lost)
    elapsed = int((timeline.end - timeline.start)[np.isin(timeline.flow_of, group.flows)].sum())
    share = int(best.sum()) / max(elapsed, 1)
    costly = share >= WORTH_SHARE and int(np.median(best)) >= WORTH_NS
    common = group.cause in ACK_RULES and share >= ACK_SHARE and len(exchanges) >= ACK_EXCHANGES
    if not (costly or common):
        return None
    typical = int(exchanges[np.argsort(stalled)[len(stalled) // 2]])
    observed = bool(parts.observed[group.parts].all())
    ladder = draw(timeline, parts, typical, group.cause)
    several = len(group.flows) > 1
    return Finding(
        cause=group.cause,
        grade=Grade.OBSERVED if observed else Grade.INFERRED,
        client=f"{flow.client.address} ({len(group.flows)} connections)" if several else str(flow.client),
        server=str(flow.server),
        client_process=process_of(flow.client_end),
        server_process=process_of(flow.server_end),
        flows=len(group.flows),
        holding_end=group.holding,
        delaying_end=group.delaying,
        exchanges=len(exchanges),
        lost_ns=Quantiles(p50=quantile(best, 0.5), p99=quantile(best, 0.99), total=int(best.sum())),
        why=why(group.cause, loss),
        evidence=_evidence(ladder),
        remedies=[remedy for remedy, _ in options],
        ladder=ladder,
        sequence=plot(timeline, parts, typical, group.cause, group.holding),
    )


def _evidence(ladder: Ladder) -> list[str]:
    """The steps around the stall, in words, from one typical exchange."""
    if not ladder.stalls:
        return []
    stall = max(ladder.stalls, key=lambda stall: stall.end_ns - stall.start_ns)
    lines = []
    for step in ladder.steps:
        moment = step.arrives_ns if step.arrives_ns is not None else step.at_ns
        if not (stall.start_ns - 1_000_000 <= step.at_ns and moment <= stall.end_ns + 1_000_000):
            continue
        what = step.note or f"{step.bytes} B" + (f", {step.flags}" if step.flags else "") + (
            f", ack {step.ack}" if step.ack else ""
        )
        if step.kind == "segment":
            what = f"sends {what}"
        lines.append(f"+{step.at_ns / 1e6:.3f} ms {step.sender}: {what}")
    return lines[:12]
