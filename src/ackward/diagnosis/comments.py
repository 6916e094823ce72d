"""What to write beside the packets of a capture: where a stall begins and ends, what it was, and its evidence."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Self

import numpy as np

from ackward.diagnosis.attribution import Attribution
from ackward.diagnosis.claims import NO_END
from ackward.diagnosis.columns import Columns
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

    parts: Parts
    packet: Ints
    part: Ints
    role: Ints

    @classmethod
    def of(cls, seen: Attribution) -> Self:
        """The comments on a capture. A live recording has no packets, so it gets none."""
        parts = seen.parts
        stalls = np.flatnonzero(
            np.isin(parts.cause, [CAUSES.index(cause) for cause in STALLS]) & (parts.ns >= LEAST_NS)
        )
        flow = seen.flow_of[stalls]
        found = [np.zeros((3, 0), np.int64)]
        for first, beyond in seen.traffic.stretches():
            low, high = np.searchsorted(flow, (first, beyond))
            if low < high:
                found.append(_told(seen, first, beyond, stalls[low:high]))
        packet, part, role = np.concatenate(found, axis=1)
        # A packet is told once of a stall, as what it is first of all.
        order = np.lexsort((role, part, packet))
        again = np.zeros(len(order), bool)
        again[1:] = (np.diff(packet[order]) == 0) & (np.diff(part[order]) == 0)
        order = order[~again]
        return cls(parts, packet[order], part[order], role[order])

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


def _told(seen: Attribution, first: int, beyond: int, stalls: Ints) -> Ints:
    """Packet, part and role of what is to be told of these parts, which are of a stretch of flows."""
    parts, segments = seen.parts, seen.traffic.rows(first, beyond)
    wired = np.array([not (flow.client_end or flow.server_end) for flow in seen.traffic.flows[first:beyond]])
    on_wire = np.isin(segments["kind"], (Kind.SENT, Kind.RECEIVED, Kind.PASSED))
    rows = np.flatnonzero(on_wire & wired[segments["flow"]])
    flow = seen.flow_of[stalls] - first
    # The last packet up to the stall's begin and the first from its end on, if the flow has such.
    begin = _place(segments, rows, flow, parts.start[stalls], behind_equal=True) - 1
    end = _place(segments, rows, flow, parts.end[stalls], behind_equal=False)
    inside = np.maximum(end - begin - 1, 0)
    within = np.repeat(begin + 1, inside) + _counting(inside)
    known = parts.evidence[stalls] >= 0
    opening = _of_flow(segments["flow"], rows, begin, flow)
    closing = _of_flow(segments["flow"], rows, end, flow)
    # In the order of _ROLES.
    found = [
        (rows[begin[opening]], stalls[opening]),
        (rows[end[closing]], stalls[closing]),
        (parts.evidence[stalls][known] - seen.traffic.begins[first], stalls[known]),
        (rows[within], np.repeat(stalls, inside)),
    ]
    row, part = (np.concatenate([entry[column] for entry in found]) for column in (0, 1))
    role = np.repeat(np.arange(len(found)), [len(chosen) for chosen, _ in found])
    kept = wired[segments["flow"][row]]
    return np.stack((segments["packet"][row], part, role))[:, kept]


def _place(segments: Columns, rows: Ints, flow: Ints, time: Ints, *, behind_equal: bool) -> Ints:
    """Where each (flow, time) would stand among ``rows``, which are in order of both."""
    groups = np.concatenate((segments["flow"][rows].astype(np.int64), flow))
    times = np.concatenate((segments["time_ns"][rows], time))
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
