"""Where the time of all exchanges went: every stretch of the traffic, cut, claimed and settled on its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import numpy as np

from ackward.diagnosis import causes
from ackward.diagnosis.claims import NO_ROW
from ackward.diagnosis.exchanges import Exchanges, Timeline
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.measures import Measures, measured
from ackward.diagnosis.partition import Parts, settle
from ackward.diagnosis.segmented import Ints
from ackward.diagnosis.traffic import Traffic, each


def partition(timeline: Timeline) -> Parts:
    """Ask every cause for its claims and settle them."""
    waits = Waits(timeline)
    return settle(timeline, [claims for cause in causes.ALL for claims in cause(waits)])


@dataclass(frozen=True)
class Stretch:
    """Some flows, with the partition of their exchanges; everything is numbered from 0.

    ``flow``, ``exchange`` and ``row`` are the numbers that their first ones have among all.
    """

    timeline: Timeline
    parts: Parts
    flow: int
    exchange: int
    row: int


@dataclass(frozen=True)
class Attribution:
    """The exchanges of all traffic and their partition. ``evidence`` of a part counts the rows of all traffic."""

    traffic: Traffic
    exchanges: Exchanges
    parts: Parts
    measures: Measures

    @classmethod
    def of(cls, traffic: Traffic) -> Self:
        """Attribute all traffic."""

        def settled(first: int, beyond: int) -> tuple[Exchanges, Parts, Measures]:
            timeline = traffic.timeline(first, beyond)
            return _kept(timeline), _compact(partition(timeline)), measured(timeline, beyond - first)

        stretches = list(traffic.stretches())
        exchanges, parts, measures = zip(*each(settled, stretches), strict=True)
        flows_before = [first for first, _ in stretches]
        return cls(
            traffic,
            _joined_exchanges(exchanges, flows_before),
            _joined_parts(parts, exchanges, traffic.begins[flows_before]),
            Measures.joined(measures),
        )

    @cached_property
    def flow_of(self) -> Ints:
        """The flow of each part."""
        return self.exchanges.flow_of[self.parts.exchange]

    def stretch(self, first: int, beyond: int) -> Stretch:
        """The flows from ``first`` up to ``beyond``, with their rows."""
        begin, end = np.searchsorted(self.exchanges.flow_of, (first, beyond)).tolist()
        row = int(self.traffic.begins[first])
        low, high = np.searchsorted(self.parts.exchange, (begin, end)).tolist()
        own = Parts(*(getattr(self.parts, field.name)[low:high] for field in fields(Parts)))
        evidence = np.where(own.evidence == NO_ROW, NO_ROW, own.evidence - row)
        parts = replace(own, exchange=own.exchange - begin, evidence=evidence)
        return Stretch(self.traffic.timeline(first, beyond), parts, first, begin, row)

    def stretches(self) -> Iterator[Stretch]:
        """All flows, some at a time."""
        return (self.stretch(first, beyond) for first, beyond in self.traffic.stretches())


def _kept(timeline: Timeline) -> Exchanges:
    """The exchanges without their rows."""
    return Exchanges(*(getattr(timeline, field.name) for field in fields(Exchanges)))


def _compact(parts: Parts) -> Parts:
    """The same in half the memory: there may be as many parts as segments."""
    small = {name: getattr(parts, name).astype(np.int8) for name in ("cause", "holding", "delaying")}
    return replace(parts, exchange=parts.exchange.astype(np.int32), **small)


def _joined_exchanges(found: Sequence[Exchanges], flows_before: Sequence[int]) -> Exchanges:
    columns = {
        field.name: np.concatenate([getattr(exchanges, field.name) for exchanges in found])
        for field in fields(Exchanges)
    }
    columns["flow_of"] += np.repeat(flows_before, [exchanges.count for exchanges in found])
    return Exchanges(**columns)


def _joined_parts(found: Sequence[Parts], exchanges: Sequence[Exchanges], rows_before: Ints) -> Parts:
    before = np.cumsum([0, *(some.count for some in exchanges)], dtype=np.int32)
    numbered = [
        replace(
            parts,
            exchange=parts.exchange + number,
            evidence=np.where(parts.evidence == NO_ROW, NO_ROW, parts.evidence + row),
        )
        for parts, number, row in zip(found, before[:-1], rows_before, strict=True)
    ]
    return Parts.joined(numbered)
