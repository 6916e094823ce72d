"""What to write beside the packets of a capture: where a stall begins and ends, what it was, and its evidence."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Self

import numpy as np

from ackward.diagnosis.claims import NO_END
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.partition import CAUSES, Parts
from ackward.diagnosis.segmented import Ints
from ackward.model.causes import STALLS
from ackward.model.segments import Kind, Vantage

#: Stalls shorter than this get no comment: they are in the tables, and would only hide the others.
LEAST_NS = 100_000
#: One packet can be the evidence of any number of stalls.
MOST_A_PACKET = 8

_ROLES = ("begins", "ends", "evidence", "goes on")
_END = {Vantage.CLIENT: "client", Vantage.SERVER: "server"}


@dataclass(frozen=True)
class Comments:
    """One entry a packet and stall, by packet: which part of ``parts`` it belongs to, and as what (of ``_ROLES``).

    Texts are made when they are asked for: a long capture may have millions.
    """

    timeline: Timeline
    parts: Parts
    packet: Ints
    part: Ints
    role: Ints

    @classmethod
    def of(cls, timeline: Timeline, parts: Parts) -> Self:
        """The comments on a capture. A live recording has no packets, so it gets none."""
        segments = timeline.segments
        wired = np.array([not (flow.client_end or flow.server_end) for flow in timeline.flows], bool)
        on_wire = np.isin(segments["kind"], (Kind.SENT, Kind.RECEIVED, Kind.PASSED))
        rows = np.flatnonzero(on_wire & wired[segments["flow"]])
        stalls = np.flatnonzero(
            np.isin(parts.cause, [CAUSES.index(cause) for cause in STALLS]) & (parts.ns >= LEAST_NS)
        )
        flow = timeline.flow_of[parts.exchange[stalls]]
        # The last packet up to the stall's begin and the first from its end on, if the flow has such.
        begin = _place(timeline, rows, flow, parts.start[stalls], behind_equal=True) - 1
        end = _place(timeline, rows, flow, parts.end[stalls], behind_equal=False)
        inside = np.maximum(end - begin - 1, 0)
        within = np.repeat(begin + 1, inside) + _counting(inside)
        known = parts.evidence[stalls] >= 0
        opening = _of_flow(segments["flow"], rows, begin, flow)
        closing = _of_flow(segments["flow"], rows, end, flow)
        # In the order of _ROLES.
        found = [
            (rows[begin[opening]], stalls[opening]),
            (rows[end[closing]], stalls[closing]),
            (parts.evidence[stalls][known], stalls[known]),
            (rows[within], np.repeat(stalls, inside)),
        ]
        row, part = (np.concatenate([entry[column] for entry in found]) for column in (0, 1))
        role = np.repeat(np.arange(len(found)), [len(chosen) for chosen, _ in found])
        kept = wired[segments["flow"][row]]
        row, part, role = row[kept], part[kept], role[kept]
        # A packet is told once of a stall, as what it is first of all.
        packet = segments["packet"][row]
        order = np.lexsort((role, part, packet))
        again = np.zeros(len(order), bool)
        again[1:] = (np.diff(packet[order]) == 0) & (np.diff(part[order]) == 0)
        order = order[~again]
        return cls(timeline, parts, packet[order], part[order], role[order])

    def __len__(self) -> int:
        return len(self.packet)

    def between(self, first: int, beyond: int) -> dict[int, str]:
        """The texts for packets ``first`` .. ``beyond - 1``, by packet: one line a stall."""
        low, high = np.searchsorted(self.packet, (first, beyond))
        lines: defaultdict[int, list[str]] = defaultdict(list)
        for entry in range(int(low), int(high)):
            mine = lines[int(self.packet[entry])]
            if len(mine) < MOST_A_PACKET:
                mine.append(self._line(int(self.part[entry]), _ROLES[self.role[entry]]))
        return {packet: "\n".join(texts) for packet, texts in lines.items()}

    def _line(self, part: int, role: str) -> str:
        parts = self.parts
        cause = CAUSES[int(parts.cause[part])]
        grade = "observed" if parts.observed[part] else "inferred"
        ends = [
            f"{_END[Vantage(int(end))]} {does}"
            for end, does in ((parts.holding[part], "holds"), (parts.delaying[part], "delays"))
            if end != NO_END
        ]
        exchange = int(parts.exchange[part])
        # Not parts.ns: that would be made anew, whole, for each line.
        elapsed = int(parts.end[part] - parts.start[part])
        facts = [f"{elapsed / 1e6:.3f} ms", grade, *ends, f"exchange {exchange}"]
        what = f"evidence of {cause}" if role == "evidence" else f"{cause} {role}"
        return f"ackward: {what}: {', '.join(facts)}"


def _place(timeline: Timeline, rows: Ints, flow: Ints, time: Ints, *, behind_equal: bool) -> Ints:
    """Where each (flow, time) would stand among ``rows``, which are in order of both."""
    groups = np.concatenate((timeline.segments["flow"][rows].astype(np.int64), flow))
    times = np.concatenate((timeline.time[rows], time))
    asked = np.repeat((0, 1), (len(rows), len(flow)))
    order = np.lexsort((asked if behind_equal else -asked, times, groups))
    before = np.cumsum(asked[order] == 0)
    place = np.empty(len(order), np.int64)
    place[order] = before
    return place[len(rows) :]


def _of_flow(flow_of_row: Ints, rows: Ints, index: Ints, flow: Ints) -> Ints:
    """Which of these indices into ``rows`` name a row of the flow meant."""
    inside = np.flatnonzero((index >= 0) & (index < len(rows)))
    mine: Ints = inside[flow_of_row[rows[index[inside]]] == flow[inside]]
    return mine


def _counting(lengths: Ints) -> Ints:
    """0, 1, 2 ... anew for each of these lengths."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
