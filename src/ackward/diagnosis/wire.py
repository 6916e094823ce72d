"""Packets to vantage points: where was the capture taken, and what did that host send and receive.

Laws
 - What the packets themselves tell of their passage decides: those that the capturing host sent are of its own end.
 - Else the two halves of a round trip, from the capture point to either end and back, tell where it stands: near the
   end whose half is the smaller one. It does not move, so the smallest halves of all flows between two hosts count.
 - Else, if only one end leaves checksums to its network card, the capture is at that end: they are on no wire.

A capture at a host is that host's own view, so its rows become SENT and RECEIVED like those of a live socket, only
without the socket's state. Between the hosts, the client's view is estimated: what it sent passed half its half later,
what it received half its half earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from ackward.diagnosis.flows import Flow, Flows, SeenFrom
from ackward.diagnosis.segmented import Bools, Ints, running_max, unwrap
from ackward.model.segments import SEGMENT, WIRE_FIELDS, Endpoint, Flag, Kind, Passage, Segments, Vantage

#: A capture stands at an end if that end's half is at most this share of the round trip.
NEAR = 0.25
USUAL_MSS = 1460  # Ethernet, IPv4


@dataclass(frozen=True)
class WireFlow:
    """What a capture knows of one connection. ``mss`` is that of either direction that is known, 0 if none is."""

    client: Endpoint
    server: Endpoint
    role_seen: bool
    mss: int = 0
    mptcp: bool = False


@dataclass(frozen=True)
class Halves:
    """The smallest times from the capture point to an end and back, per flow, in nanoseconds; -1 if none was seen."""

    client: Ints
    server: Ints


def view(flows: Sequence[WireFlow], wire: Segments) -> tuple[Flows, Segments]:
    """The flows with their vantage points and round trips, and their rows in the common table, by flow and time.

    ``wire`` has rows of WIRE_SEGMENT in order of flow and time.
    """
    halves = _halves(wire, len(flows))
    places = _places(flows, wire, halves)
    rows = np.zeros(len(wire), SEGMENT)
    for name, _ in WIRE_FIELDS:
        rows[name] = wire[name]
    flow = wire["flow"]
    at_server = (places == "server")[flow]
    rows["vantage"] = np.where(at_server, Vantage.SERVER, Vantage.CLIENT)
    rows["kind"] = np.where(wire["to_server"] != at_server, Kind.SENT, Kind.RECEIVED)
    rows["mss"] = _payload_limit(flows, wire)[flow]
    # Between the hosts: the client sent it earlier and received it later than it passed.
    shift = np.where(places == "between", np.maximum(halves.client, 0) // 2, 0)[flow]
    rows["time_ns"] += np.where(wire["to_server"], -shift, shift)
    rows = rows[np.lexsort((rows["time_ns"], rows["flow"]))]
    sizes = {
        to_server: np.bincount(
            flow, weights=np.where(wire["to_server"] == to_server, wire["bytes"], 0), minlength=len(flows)
        )
        for to_server in (True, False)
    }
    rtt = np.maximum(halves.client, 0) + np.maximum(halves.server, 0)
    seen = cast("list[SeenFrom]", places.tolist())
    made = [
        Flow(
            known.client,
            known.server,
            seen[number],
            int(rtt[number]),
            mptcp=known.mptcp,
            bytes_to_server=int(sizes[True][number]),
            bytes_to_client=int(sizes[False][number]),
        )
        for number, known in enumerate(flows)
    ]
    return Flows.of(made), rows


def _payload_limit(flows: Sequence[WireFlow], wire: Segments) -> Ints:
    """The most payload that a full segment of each flow carries: timestamps take 12 bytes of the MSS (RFC 6691)."""
    stamped = np.zeros(len(flows), bool)
    stamped[wire["flow"][wire["tsval"] > 0]] = True
    agreed = np.array([known.mss or USUAL_MSS for known in flows], np.int64).reshape(-1)
    return np.maximum(agreed - np.where(stamped, 12, 0), 1)


def _halves(wire: Segments, count: int) -> Halves:
    """For each segment that takes up sequence space the time until it was acknowledged; the smallest of a flow."""
    took = wire["bytes"] + ((wire["tcp_flags"] & (Flag.SYN | Flag.FIN)) > 0)
    result = {True: np.full(count, -1, np.int64), False: np.full(count, -1, np.int64)}
    for to_server in (True, False):
        there = (wire["to_server"] == to_server) & (took > 0)
        back = (wire["to_server"] != to_server) & (wire["tcp_flags"] & Flag.ACK > 0)
        rows = np.flatnonzero(there | back)
        group = wire["flow"][rows].astype(np.int64)
        mine = there[rows]
        edge = np.where(mine, wire["seq"][rows] + took[rows], wire["ack"][rows]).astype(np.uint32)
        number = unwrap(group, edge)
        # Retransmissions are left out (Karn): their ACK may be the first one's.
        fresh = mine & (number > running_max(group, number, where=mine, inclusive=False))
        answered = _first_reach(group, number, fresh, ~mine)
        asked = np.flatnonzero(fresh & (answered >= 0))
        times = wire["time_ns"][rows]
        taken = times[answered[asked]] - times[asked]
        smallest = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(smallest, group[asked], taken)
        result[to_server] = np.where(smallest == np.iinfo(np.int64).max, -1, np.maximum(smallest, 0))
    return Halves(client=result[False], server=result[True])


def _first_reach(group: Ints, number: Ints, asks: Bools, answers: Bools) -> Ints:
    """For each row of ``asks`` the first later row of ``answers`` whose number reaches its own, else -1."""
    found = np.full(len(group), -1, np.int64)
    replies = np.flatnonzero(answers)
    asking = np.flatnonzero(asks)
    if not len(replies) or not len(asking):
        return found
    reached = running_max(group[replies], number[replies])
    lowest = min(int(reached.min()), int(number[asking].min()))
    span = max(int(reached.max()), int(number[asking].max())) - lowest + 1
    place = np.searchsorted(
        group[replies] * span + reached - lowest, group[asking] * span + number[asking] - lowest
    )
    safe = np.minimum(place, len(replies) - 1)
    good = (place < len(replies)) & (group[replies[safe]] == group[asking]) & (replies[safe] > asking)
    found[asking[good]] = replies[safe[good]]
    return found


Places = np.ndarray[tuple[int], np.dtype[np.str_]]


def _places(flows: Sequence[WireFlow], wire: Segments, halves: Halves) -> Places:
    """Per flow: client, server or between. Where a flow cannot tell, its addresses' other flows do."""
    passed, unsummed = _passed(wire, len(flows))
    place = np.where(passed == "", _by_halves(flows, halves), passed)
    place = np.where(place == "between", np.where(unsummed == "", place, unsummed), place)
    known = place != ""
    if known.all():
        return place
    votes: dict[object, int] = {}
    for number, flow in enumerate(flows):
        if known[number] and place[number] != "between":
            near, far = (
                (flow.client, flow.server) if place[number] == "client" else (flow.server, flow.client)
            )
            votes[near.address] = votes.get(near.address, 0) + 1
            votes[far.address] = votes.get(far.address, 0) - 1
    for number in np.flatnonzero(~known).tolist():
        flow = flows[number]
        ours, theirs = votes.get(flow.client.address, 0), votes.get(flow.server.address, 0)
        place[number] = "between" if ours == theirs else "client" if ours > theirs else "server"
    return place


def _by_halves(flows: Sequence[WireFlow], halves: Halves) -> Places:
    """Per flow: client, server, between, or empty where no half is known."""
    numbers: dict[object, int] = {}
    pair = np.array(
        [numbers.setdefault((flow.client.address, flow.server.address), len(numbers)) for flow in flows],
        np.int64,
    ).reshape(-1)
    unknown = np.iinfo(np.int64).max
    near = {}
    for end, half in (("client", halves.client), ("server", halves.server)):
        smallest = np.full(len(numbers), unknown)
        np.minimum.at(smallest, pair, np.where(half >= 0, half, unknown))
        near[end] = smallest[pair]
    known = (near["client"] < unknown) & (near["server"] < unknown)
    client, server = (np.where(known, half, 0) for half in near.values())
    whole = client + server
    share = client / np.maximum(whole, 1)
    place = np.where(share <= NEAR, "client", np.where(share >= 1 - NEAR, "server", "between"))
    return np.where(known & (whole > 0), place, "")


def _passed(wire: Segments, count: int) -> tuple[Places, Places]:
    """Per flow the end that the passage of its packets tells, and the one that its checksums do; empty if neither."""
    nothing = np.full(count, "", "U7")
    told = np.flatnonzero(wire["passage"])
    if not len(told):
        return nothing, nothing
    flow, to_server, passage = (wire[name][told] for name in ("flow", "to_server", "passage"))

    def seen(which: Passage, *, forth: bool) -> Bools:
        return np.bincount(flow[(passage & which > 0) & (to_server == forth)], minlength=count) > 0

    # A host that forwards shows both at once, and so does one that talks to itself.
    client = seen(Passage.LEFT, forth=True) | seen(Passage.ARRIVED, forth=False)
    server = seen(Passage.LEFT, forth=False) | seen(Passage.ARRIVED, forth=True)
    passed = np.where(client & ~server, "client", np.where(server & ~client, "server", nothing))

    # On a link within one machine no checksum is ever computed: then both SYNs lack it.
    asked, answered = seen(Passage.UNSUMMED, forth=True), seen(Passage.UNSUMMED, forth=False)
    syn = np.flatnonzero(wire["tcp_flags"] & Flag.SYN)
    both = np.ones(count, bool)
    for forth in (True, False):
        of = wire["flow"][syn[wire["to_server"][syn] == forth]]
        both &= np.bincount(of, minlength=count) > 0
    unsummed = np.where(both & (asked != answered), np.where(asked, "client", "server"), nothing)
    return passed, unsummed
