"""Packets to the common table: what the captured host, or the client, sent and received.

A capture at a host is that host's own view, so its rows become SENT and RECEIVED like those of a live socket, only
without the socket's state. Between the hosts, the client's view is estimated: what it sent passed half its half later,
what it received half its half earlier. Where a capture stands is told by :mod:`ackward.diagnosis.standpoint`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ackward.diagnosis.columns import Columns
from ackward.diagnosis.flows import SEEN_FROM, Flow, Flows
from ackward.diagnosis.segmented import Bools, Ints
from ackward.diagnosis.standpoint import Sight, places, sight
from ackward.diagnosis.traffic import Traffic, each, stretches
from ackward.model.segments import WINDOW_UNTOLD, WIRE_FIELDS, Endpoint, Kind, Segments, Vantage

USUAL_MSS = 1460  # Ethernet, IPv4
#: What timestamps take of the MSS (RFC 6691).
TIMESTAMPS = 12


@dataclass(frozen=True)
class WireFlow:
    """What a capture knows of one connection. ``mss`` is that of either direction that is known, 0 if none is.

    ``scaled``: the SYNs told how windows are scaled. Without them a window of 0 is certain, and no other.
    """

    client: Endpoint
    server: Endpoint
    mss: int = 0
    mptcp: bool = False
    scaled: bool = True


@dataclass(frozen=True)
class WireFlows:
    """The same of all connections of a capture, by columns; ``ends`` gives client and server of one of them.

    Addresses are numbers, the same for the same address.
    """

    client_address: Ints
    server_address: Ints
    mss: Ints
    mptcp: Bools
    scaled: Bools
    ends: Callable[[int], tuple[Endpoint, Endpoint]]

    @classmethod
    def of(cls, flows: Sequence[WireFlow]) -> Self:
        """From connections one by one."""
        numbers: dict[object, int] = {}

        def numbered(ends: Sequence[Endpoint]) -> Ints:
            return np.array([numbers.setdefault(end.address, len(numbers)) for end in ends], np.int64)

        return cls(
            numbered([flow.client for flow in flows]),
            numbered([flow.server for flow in flows]),
            np.array([flow.mss for flow in flows], np.int64),
            np.array([flow.mptcp for flow in flows], bool),
            np.array([flow.scaled for flow in flows], bool),
            lambda number: (flows[number].client, flows[number].server),
        )

    def __len__(self) -> int:
        return len(self.mss)

    def chosen(self, flows: Ints) -> Self:
        """These flows alone, numbered in this order."""
        return replace(
            self,
            client_address=self.client_address[flows],
            server_address=self.server_address[flows],
            mss=self.mss[flows],
            mptcp=self.mptcp[flows],
            scaled=self.scaled[flows],
            ends=lambda number: self.ends(int(flows[number])),
        )


def captured(known: WireFlows, wire: Segments) -> Traffic:
    """The flows with their vantage points and round trips, and their rows in the common table.

    ``wire`` has rows of WIRE_SEGMENT in order of flow and time.
    """
    begins = np.searchsorted(wire["flow"], np.arange(len(known) + 1))

    def seen(first: int, beyond: int) -> Sight:
        return sight(Columns(wire[begins[first] : begins[beyond]]), first, beyond - first)

    facts = Sight.joined(each(seen, stretches(begins)))
    place = places(known.client_address, known.server_address, facts)
    rtt = np.maximum(facts.client_half, 0) + np.maximum(facts.server_half, 0)
    limit = np.maximum(
        np.where(known.mss > 0, known.mss, USUAL_MSS) - np.where(facts.stamped, TIMESTAMPS, 0), 1
    )
    # Between the hosts: the client sent it earlier and received it later than it passed.
    shift = np.where(place == SEEN_FROM.index("between"), np.maximum(facts.client_half, 0) // 2, 0)
    at_server = place == SEEN_FROM.index("server")

    def rows(first: int, beyond: int) -> Columns:
        flows = slice(first, beyond)
        mine = wire[begins[first] : begins[beyond]]
        return _rows(mine, first, at_server[flows], shift[flows], limit[flows], known.scaled[flows])

    def flow(number: int) -> Flow:
        return Flow(
            *known.ends(number),
            SEEN_FROM[place[number]],
            int(rtt[number]),
            mptcp=bool(known.mptcp[number]),
            bytes_to_server=int(facts.bytes_to_server[number]),
            bytes_to_client=int(facts.bytes_to_client[number]),
        )

    return Traffic(Flows(place, rtt, flow), begins, rows)


def view(known: WireFlows, wire: Segments) -> tuple[Flows, Segments]:
    """As :func:`captured`, with the rows of all flows at once."""
    traffic = captured(known, wire)
    return traffic.flows, traffic.rows(0, len(known)).rows


def _rows(wire: Segments, first: int, at_server: Bools, shift: Ints, limit: Ints, scaled: Bools) -> Columns:
    columns = {name: wire[name] for name, _ in WIRE_FIELDS}
    columns["flow"] = flow = wire["flow"] - np.int32(first)
    columns["vantage"] = np.where(at_server, np.uint8(Vantage.SERVER), np.uint8(Vantage.CLIENT))[flow]
    sent = wire["to_server"] != at_server[flow]
    columns["kind"] = np.where(sent, np.uint8(Kind.SENT), np.uint8(Kind.RECEIVED))
    columns["mss"] = limit.astype(np.uint16)[flow]
    if not scaled.all():
        told = scaled[flow] | (wire["window"] == 0)
        columns["window"] = np.where(told, wire["window"], np.uint32(WINDOW_UNTOLD))
    if shift.any():
        moved = shift[flow]
        columns["time_ns"] = wire["time_ns"] + np.where(wire["to_server"], -moved, moved)
    time = columns["time_ns"]
    # Clocks jump, and files are out of order.
    if ((time[1:] < time[:-1]) & (flow[1:] == flow[:-1])).any():
        order = np.lexsort((time, flow))
        columns = {name: column[order] for name, column in columns.items()}
    return Columns(columns)
