"""What some flows' tail-loss probes and their peer's ACKs show, and the findings that cost segments instead of time.

A needless probe repeats a segment while nobody waits: no exchange is longer for it. It costs bandwidth, and window
where the receiver sends no D-SACK. So it is told although it lost no time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.ack_policy import AckPolicy, AckSamples, ack_policy, ack_samples
from ackward.diagnosis.attribution import Attribution
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.probing import (
    Probes,
    Sign,
    Verdict,
    probe_timeout_ns,
    probes,
    smallest_round_trip,
)
from ackward.diagnosis.segmented import Ints
from ackward.model.causes import End
from ackward.model.segments import Vantage
from ackward.model.tcp_constants import RTO_MIN_NS

#: Of so many flows the packets are read again for a story; of more, those with the most parts stand for all.
MOST_FLOWS = 64
#: Fewer needless probes than this, or fewer than useful ones, are not worth a finding of their own.
WORTH_PROBES = 3


@dataclass(frozen=True)
class Story:
    """Probes of one sender by verdict and by sign, the timeouts behind them, and its peer's way to acknowledge.

    ``expected_ns`` is the median of what the kernel's rule gives for probes with several segments in flight, with the
    smoothed round trip that its kernel told or else (not ``told``) the smallest one seen, which is a lower bound;
    ``seen_ns`` is the median silence before these. ``expected_alone_ns`` is the same rule with exactly one segment in
    flight. ``looked_at`` of ``flows`` were read.
    """

    sender: End
    verdicts: Counter[Verdict]
    signs: Counter[Sign]
    expected_ns: int | None
    expected_alone_ns: int | None
    seen_ns: int | None
    told: bool
    policy: AckPolicy
    looked_at: int
    flows: int

    @property
    def probes(self) -> int:
        """All of them."""
        return sum(self.verdicts.values())


def story(timelines: Sequence[Timeline], sender: Vantage, flows: int) -> Story:
    """What all these timelines together show of the probes that ``sender`` sent."""
    found = [(timeline, probes(timeline)) for timeline in timelines]
    mine = [(timeline, some.chosen(some.vantage == sender)) for timeline, some in found]
    whole = Probes.joined([some for _, some in mine])
    told = bool((whole.srtt > 0).any())
    smoothed = np.concatenate([_smoothed(timeline, some) for timeline, some in mine])
    several = whole.in_flight > 1
    expected = [probe_timeout_ns(int(srtt), 2, RTO_MIN_NS + int(srtt)) for srtt in smoothed[several]]
    alone = [probe_timeout_ns(int(srtt), 1, RTO_MIN_NS + int(srtt)) for srtt in smoothed]
    samples = [ack_samples(timeline, Vantage(1 - sender)) for timeline in timelines]
    return Story(
        (End.CLIENT, End.SERVER)[sender],
        Counter(map(Verdict, whole.verdict.tolist())),
        Counter(map(Sign, whole.sign[whole.verdict == Verdict.SPURIOUS].tolist())),
        int(np.median(expected)) if expected else None,
        int(np.median(alone)) if alone else None,
        int(np.median(whole.waited[several])) if several.any() else None,
        told,
        ack_policy(
            AckSamples(
                np.concatenate([some.segments for some in samples]),
                np.concatenate([some.forced for some in samples]),
                np.concatenate([some.age for some in samples]),
            )
        ),
        len(timelines),
        flows,
    )


def _smoothed(timeline: Timeline, some: Probes) -> Ints:
    found: Ints = np.where(
        some.srtt > 0, some.srtt, smallest_round_trip(timeline, timeline.segments["flow"][some.row])
    )
    return found


def story_of(seen: Attribution, flows: Ints, sender: End | None) -> Story | None:
    """The story of a finding's flows, sorted by number; None if it names no sender."""
    if sender is None or not len(flows):
        return None
    share = flows[:MOST_FLOWS].tolist()
    timelines = [seen.stretch(flow, flow + 1).timeline for flow in share]
    return story(timelines, Vantage.CLIENT if sender == End.CLIENT else Vantage.SERVER, len(flows))


@dataclass(frozen=True)
class Needless:
    """Flows whose ``sender``'s probes were needless, and how many ``exchanges`` they left in or after."""

    flows: Ints
    sender: End
    exchanges: int
    typical: int


def needless(seen: Attribution) -> list[Needless]:
    """Groups of flows with needless probes enough for a finding, those with the most repeats first."""
    again = seen.measures.retransmissions
    order = np.argsort(-again, kind="stable")[:MOST_FLOWS]
    groups: dict[tuple[object, ...], list[tuple[int, Ints, Counter[Verdict]]]] = defaultdict(list)
    for flow in order[again[order] >= 1].tolist():
        near = seen.stretch(flow, flow + 1)
        if not near.timeline.count:
            continue
        found = probes(near.timeline)
        ends = seen.traffic.flows[flow]
        for vantage in (Vantage.CLIENT, Vantage.SERVER):
            some = found.chosen(found.vantage == vantage)
            spurious = some.row[some.verdict == Verdict.SPURIOUS]
            begun = np.searchsorted(near.timeline.start, near.timeline.time[spurious], side="right") - 1
            where = np.unique(np.maximum(begun, 0)) + near.exchange
            key = (ends.client.address, ends.server, vantage)
            groups[key].append((flow, where, Counter(map(Verdict, some.verdict.tolist()))))
    return [
        _group(members, End.CLIENT if key[2] == Vantage.CLIENT else End.SERVER)
        for key, members in groups.items()
        if _worth(verdicts for _, _, verdicts in members)
    ]


def _worth(counts: Iterable[Counter[Verdict]]) -> bool:
    total = sum(counts, Counter[Verdict]())
    return total[Verdict.SPURIOUS] >= max(WORTH_PROBES, total[Verdict.USEFUL] + 1)


def _group(members: Sequence[tuple[int, Ints, Counter[Verdict]]], sender: End) -> Needless:
    members = [member for member in members if member[2][Verdict.SPURIOUS]]
    exchanges = np.concatenate([where for _, where, _ in members])
    return Needless(
        np.array(sorted(flow for flow, _, _ in members)),
        sender,
        len(exchanges),
        int(exchanges[len(exchanges) // 2]),
    )
