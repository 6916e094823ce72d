"""The partition to findings: the causes that cost enough to mention, grouped by who talks to whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from ackward.diagnosis.attribution import Attribution
from ackward.diagnosis.claims import NO_END
from ackward.diagnosis.counterfactual import Savings, savings
from ackward.diagnosis.flows import Flow
from ackward.diagnosis.ladder import draw
from ackward.diagnosis.partition import CAUSES
from ackward.diagnosis.probe_story import needless, story_of
from ackward.diagnosis.probe_words import NEEDLESS, evidence
from ackward.diagnosis.segmented import Ints
from ackward.diagnosis.sequence import plot
from ackward.diagnosis.words import WRITES_UNSEEN, Loss, quantile, remedies, why
from ackward.model.causes import STALLS, Cause, End, Grade
from ackward.model.report import Finding, Ladder, LadderStep, Process, Quantiles
from ackward.model.segments import Owner, SocketFacts, Vantage

#: A finding must have cost this share of its flows' time and this much a stalled exchange: below, it is noise...
WORTH_SHARE = 0.01
WORTH_NS = 1_000_000
#: ...unless an ACK rule took this share of very fast exchanges, and not just once.
ACK_RULES = frozenset({Cause.STANDOFF, Cause.NAGLE, Cause.DELAYED_ACK})
ACK_SHARE = 0.10
ACK_EXCHANGES = 3

#: Evidence is this many steps at most, and what lies this near to a stall may have to do with it.
EVIDENCE = 12
NEAR_NS = 1_000_000

_END = {Vantage.CLIENT: End.CLIENT, Vantage.SERVER: End.SERVER}


@dataclass(frozen=True)
class _Group:
    """The parts of one finding: indices into the partition, and the flow that stands for all."""

    cause: Cause
    flows: Ints
    parts: Ints
    holding: End | None
    delaying: End | None


def process_of(socket: SocketFacts | None) -> Process | None:
    """Who owns an end, for a report."""
    if socket is None:
        return None
    owner: Owner = socket.owner
    return Process(
        pid=owner.pid,
        command=owner.command,
        container=owner.container,
        netns=owner.netns_name,
        container_name=owner.container_name,
        pod=owner.pod,
        node=owner.node,
    )


def _who(flow: Flow) -> tuple[object, ...]:
    """Flows with the same answer are alike: the same two hosts and programs and the same service."""
    ends = (flow.client_end, flow.server_end)
    owners = tuple((end.owner.netns, end.owner.command, end.owner.container) if end else None for end in ends)
    return (flow.client.address, flow.server, *owners)


def _end(vantage: int) -> End | None:
    return None if vantage == NO_END else _END[Vantage(vantage)]


def _groups(seen: Attribution) -> Iterator[_Group]:
    parts = seen.parts
    stalls = np.flatnonzero(np.isin(parts.cause, [CAUSES.index(cause) for cause in STALLS]))
    if not len(stalls):
        return
    flow = seen.flow_of[stalls]
    alike: dict[tuple[object, ...], int] = {}
    kin = np.zeros(len(seen.traffic.flows), np.int64)
    for number in np.unique(flow).tolist():
        kin[number] = alike.setdefault(_who(seen.traffic.flows[number]), len(alike))
    # All that members of a group share, as one number: ends are -1 (NO_END), 0 or 1, and causes fewer than 32.
    ends = (parts.holding[stalls] + 1) * 3 + parts.delaying[stalls] + 1
    key = (kin[flow] * 9 + ends) * 32 + parts.cause[stalls]
    order = np.argsort(key, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        first = stalls[members[0]]
        yield _Group(
            CAUSES[int(parts.cause[first])],
            np.unique(flow[members]),
            stalls[members],
            _end(int(parts.holding[first])),
            _end(int(parts.delaying[first])),
        )


def findings(seen: Attribution) -> list[Finding]:
    """All findings, the costliest first."""
    elapsed = np.zeros(len(seen.traffic.flows), np.int64)
    np.add.at(elapsed, seen.exchanges.flow_of, seen.exchanges.elapsed)
    # No remedy saves more than the stall, so only what is worth a mention by its length is replayed.
    stalls = [_Stall.of(seen, group, int(elapsed[group.flows].sum())) for group in _groups(seen)]
    stalls = [stall for stall in stalls if stall.worth(stall.per_exchange(seen.parts.ns[stall.group.parts]))]
    found = _costly(seen, stalls) if stalls else []
    found += _needless(seen, {(finding.cause, finding.server) for finding in found})
    return sorted(found, key=lambda finding: -finding.lost_ns.total)


def _costly(seen: Attribution, stalls: list[_Stall]) -> list[Finding]:
    waits = np.sort(np.concatenate([stall.group.parts for stall in stalls]))
    saved = savings(seen, waits)
    return [
        finding
        for stall in stalls
        if (finding := _finding(seen, stall, saved, np.searchsorted(waits, stall.group.parts)))
    ]


@dataclass(frozen=True)
class _Stall:
    """A group with its ``exchanges``; ``place`` is that of each part among them, ``elapsed`` all of its flows' time."""

    group: _Group
    exchanges: Ints
    place: Ints
    elapsed: int

    @classmethod
    def of(cls, seen: Attribution, group: _Group, elapsed: int) -> Self:
        """The group's stall."""
        exchanges, place = np.unique(seen.parts.exchange[group.parts], return_inverse=True)
        return cls(group, exchanges, place, elapsed)

    def per_exchange(self, ns: Ints) -> Ints:
        """What the parts have, summed up."""
        total = np.zeros(len(self.exchanges), np.int64)
        np.add.at(total, self.place, ns)
        return total

    def worth(self, lost: Ints) -> bool:
        """Whether this loss, one entry an exchange, is worth a mention."""
        share = int(lost.sum()) / max(self.elapsed, 1)
        costly = share >= WORTH_SHARE and int(np.median(lost)) >= WORTH_NS
        return costly or (
            self.group.cause in ACK_RULES and share >= ACK_SHARE and len(self.exchanges) >= ACK_EXCHANGES
        )


def _finding(seen: Attribution, stall: _Stall, saved: Savings, mine: Ints) -> Finding | None:
    parts, group, exchanges = seen.parts, stall.group, stall.exchanges
    stalled = stall.per_exchange(parts.ns[group.parts])
    without = {field.name: stall.per_exchange(getattr(saved, field.name)[mine]) for field in fields(Savings)}
    example = _typical(stalled, seen.exchanges.elapsed[exchanges])
    loss = Loss(seen.exchanges.elapsed[exchanges], stalled, without, example, group.holding, group.delaying)
    flow = seen.traffic.flows[int(group.flows[0])]
    options = remedies(group.cause, loss, flow)
    best = max((saves for _, saves in options), key=lambda saves: int(saves.sum()), default=stalled)
    if not stall.worth(best):
        return None
    typical = int(exchanges[example])
    # Of most of its time: one timer of many that the kernel did not tell of makes no guess of all.
    told = int(parts.ns[group.parts][parts.observed[group.parts]].sum())
    observed = 2 * told > int(stalled.sum())
    where = int(seen.exchanges.flow_of[typical])
    near = seen.stretch(where, where + 1)
    ladder = draw(near.timeline, near.parts, typical - near.exchange, group.cause)
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
        why=_why(seen, group, loss),
        evidence=_evidence(ladder),
        remedies=[remedy for remedy, _ in options],
        ladder=ladder,
        sequence=plot(near.timeline, near.parts, typical - near.exchange, group.cause, group.holding),
    )


def _typical(stalled: Ints, elapsed: Ints) -> int:
    """Of the middle half by stall the entry of median length: one stalled for as long may have had a handshake, too."""
    order = np.argsort(stalled, kind="stable")
    middle = order[len(order) // 4 : len(order) * 3 // 4 + 1]
    return int(middle[np.argsort(elapsed[middle], kind="stable")[(len(middle) - 1) // 2]])


def _why(seen: Attribution, group: _Group, loss: Loss) -> str:
    text = why(group.cause, loss)
    if group.cause in (Cause.STANDOFF, Cause.NAGLE):
        flow = seen.traffic.flows[int(group.flows[0])]
        watched = flow.client_end if group.holding == End.CLIENT else flow.server_end
        return text if watched else f"{text} {WRITES_UNSEEN.format(holder=group.holding)}"
    if group.cause not in (Cause.ACK_HOLDING, Cause.TAIL_LOSS_PROBE):
        return text
    found = story_of(seen, group.flows, group.holding)
    return f"{text} {evidence(found)}" if found else text


def _needless(seen: Attribution, named: set[tuple[Cause, str]]) -> Iterator[Finding]:
    """Probes that repeated what had arrived, where no other finding speaks of them: they cost segments, not time."""
    for group in needless(seen):
        flow = seen.traffic.flows[int(group.flows[0])]
        if (Cause.TAIL_LOSS_PROBE, str(flow.server)) in named:
            continue
        found = story_of(seen, group.flows, group.sender)
        where = int(seen.exchanges.flow_of[group.typical])
        near = seen.stretch(where, where + 1)
        several = len(group.flows) > 1
        receiver = End.SERVER if group.sender == End.CLIENT else End.CLIENT
        zeros = np.zeros(group.exchanges, np.int64)
        without = {field.name: zeros for field in fields(Savings)}
        elapsed = np.full_like(zeros, seen.exchanges.elapsed[group.typical])
        nothing = Loss(elapsed, zeros, without, 0, group.sender, receiver)
        yield Finding(
            cause=Cause.TAIL_LOSS_PROBE,
            grade=Grade.INFERRED,
            client=f"{flow.client.address} ({len(group.flows)} connections)" if several else str(flow.client),
            server=str(flow.server),
            client_process=process_of(flow.client_end),
            server_process=process_of(flow.server_end),
            flows=len(group.flows),
            holding_end=group.sender,
            delaying_end=receiver,
            exchanges=group.exchanges,
            lost_ns=Quantiles(p50=0, p99=0, total=0),
            why=f"{NEEDLESS.format(sender=group.sender)} {evidence(found) if found else ''}".strip(),
            remedies=[remedy for remedy, _ in remedies(Cause.TAIL_LOSS_PROBE, nothing, flow)],
            ladder=draw(near.timeline, near.parts, group.typical - near.exchange, Cause.TAIL_LOSS_PROBE),
            sequence=plot(
                near.timeline, near.parts, group.typical - near.exchange, Cause.TAIL_LOSS_PROBE, group.sender
            ),
        )


def _evidence(ladder: Ladder) -> list[str]:
    """The steps around the longest stall, in words, from one typical exchange: those nearest to its begin and end."""
    if not ladder.stalls:
        return []
    stall = max(ladder.stalls, key=lambda stall: stall.end_ns - stall.start_ns)

    def away(step: LadderStep, moment: int) -> int:
        moments = [step.at_ns] if step.arrives_ns is None else [step.at_ns, step.arrives_ns]
        return min(abs(each - moment) for each in moments)

    # What leaves or arrives within a stall tells of it: the repair of a loss leaves when it ends, and arrives later.
    near = [
        number
        for number, step in enumerate(ladder.steps)
        if any(
            stall.start_ns - NEAR_NS <= moment <= stall.end_ns + NEAR_NS
            for moment in (step.at_ns, step.arrives_ns)
            if moment is not None
        )
    ]
    kept = {
        number
        for moment in (stall.start_ns, stall.end_ns)
        for number in sorted(near, key=lambda number: away(ladder.steps[number], moment))[: EVIDENCE // 2]
    }
    shown = near if len(near) <= EVIDENCE else sorted(kept)
    return [f"+{ladder.steps[number].at_ns / 1e6:.3f} ms {_told(ladder.steps[number])}" for number in shown]


def _told(step: LadderStep) -> str:
    if step.kind != "segment":
        return f"{step.sender}: {step.note}"
    what = step.note or f"{step.bytes} B" + (f", {step.flags}" if step.flags else "")
    ack = f", ack {step.ack}" if step.ack and not step.note else ""
    lost = ", not seen to arrive" if step.arrives_ns is None else ""
    return f"{step.sender}: sends {what}{ack}{lost}"
