"""Where a capture was taken: at the client, at the server, or between them.

Laws
 - What the packets themselves tell of their passage decides: those that the capturing host sent are of its own end.
 - Else the two halves of a round trip, from the capture point to either end and back, tell where it stands: near the
   end whose half is the smaller one. It does not move, so the smallest halves of all flows between two hosts count.
 - Else, if only one end leaves checksums to its network card, the capture is at that end: they are on no wire.
 - Where a flow tells nothing, the other flows of its addresses do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.columns import Columns, Entries
from ackward.diagnosis.flows import SEEN_FROM
from ackward.diagnosis.segmented import Bools, Ints, in_order, running_max, unwrap
from ackward.model.segments import Flag, Passage

#: A capture stands at an end if that end's half is at most this share of the round trip.
NEAR = 0.25
_CLIENT, _SERVER, _BETWEEN = (SEEN_FROM.index(place) for place in ("client", "server", "between"))
_UNKNOWN = -1
_NO_HALF = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Sight(Entries):
    """What the packets of each flow show, one entry a flow.

    ``client_half`` and ``server_half`` are the smallest times from the capture point to that end and back, in
    nanoseconds, -1 if none was seen. ``passed`` and ``unsummed`` number the place that the packets' passage and their
    checksums tell, -1 if they do not. ``stamped``: segments had timestamps.
    """

    client_half: Ints
    server_half: Ints
    passed: Ints
    unsummed: Ints
    stamped: Bools
    bytes_to_server: Ints
    bytes_to_client: Ints


def sight(wire: Columns, first: int, count: int) -> Sight:
    """What the rows of ``count`` flows show, whose numbers begin at ``first``."""
    flow = wire["flow"].astype(np.int64) - first
    to_server = wire["to_server"]
    stamped = np.zeros(count, bool)
    stamped[flow[wire["tsval"] > 0]] = True
    lane = np.bincount(flow * 2 + to_server, weights=wire["bytes"], minlength=2 * count).astype(np.int64)
    return Sight(
        _half(wire, flow, ~to_server, count),
        _half(wire, flow, to_server, count),
        *_passed(wire, flow, count),
        stamped,
        lane[1::2],
        lane[::2],
    )


def _half(wire: Columns, flow: Ints, there: Bools, count: int) -> Ints:
    """Per flow the smallest time from a segment that takes up sequence space to its ACK, of those sent ``there``."""
    flags = wire["tcp_flags"]
    took = wire["bytes"] + ((flags & (Flag.SYN | Flag.FIN)) > 0)
    asks = there & (took > 0)
    rows = np.flatnonzero(asks | (~there & (flags & Flag.ACK > 0)))
    group, mine, time = flow[rows], asks[rows], wire["time_ns"][rows]
    edge = np.where(mine, wire["seq"][rows] + took[rows], wire["ack"][rows]).astype(np.uint32)
    number = unwrap(group, edge)
    # Retransmissions are left out (Karn): their ACK may be the first one's.
    fresh = mine & (number > running_max(group, number, where=mine, inclusive=False))
    answered = _first_reach(group, number, fresh, ~mine)
    asked = np.flatnonzero(fresh & (answered >= 0))
    smallest = np.full(count, _NO_HALF)
    np.minimum.at(smallest, group[asked], time[answered[asked]] - time[asked])
    return np.where(smallest == _NO_HALF, -1, np.maximum(smallest, 0))


def _first_reach(group: Ints, number: Ints, asks: Bools, answers: Bools) -> Ints:
    """For each row of ``asks`` the first later row of ``answers`` whose number reaches its own, else -1."""
    found = np.full(len(group), -1, np.int64)
    replies, asking = np.flatnonzero(answers), np.flatnonzero(asks)
    if not len(replies) or not len(asking):
        return found
    reached = running_max(group[replies], number[replies])
    keys = in_order(
        np.concatenate((group[replies], group[asking])), np.concatenate((reached, number[asking]))
    )
    place = np.searchsorted(keys[: len(replies)], keys[len(replies) :])
    safe = np.minimum(place, len(replies) - 1)
    good = (place < len(replies)) & (group[replies[safe]] == group[asking]) & (replies[safe] > asking)
    found[asking[good]] = replies[safe[good]]
    return found


def _passed(wire: Columns, flow: Ints, count: int) -> tuple[Ints, Ints]:
    """Per flow the end that the passage of its packets tells, and the one that its checksums do."""
    nothing = np.full(count, _UNKNOWN)
    told = np.flatnonzero(wire["passage"])
    if not len(told):
        return nothing, nothing
    of, to_server, passage = flow[told], wire["to_server"][told], wire["passage"][told]

    def seen(which: Passage, *, forth: bool) -> Bools:
        return np.bincount(of[(passage & which > 0) & (to_server == forth)], minlength=count) > 0

    # A host that forwards shows both at once, and so does one that talks to itself.
    client = seen(Passage.LEFT, forth=True) | seen(Passage.ARRIVED, forth=False)
    server = seen(Passage.LEFT, forth=False) | seen(Passage.ARRIVED, forth=True)
    passed = np.select((client & ~server, server & ~client), (_CLIENT, _SERVER), _UNKNOWN)

    # On a link within one machine no checksum is ever computed: then both SYNs lack it.
    asked, answered = seen(Passage.UNSUMMED, forth=True), seen(Passage.UNSUMMED, forth=False)
    syn = np.flatnonzero(wire["tcp_flags"] & Flag.SYN)
    both = np.ones(count, bool)
    for forth in (True, False):
        both &= np.bincount(flow[syn[wire["to_server"][syn] == forth]], minlength=count) > 0
    unsummed = np.where(both & (asked != answered), np.where(asked, _CLIENT, _SERVER), _UNKNOWN)
    return passed, unsummed


def places(client_address: Ints, server_address: Ints, seen: Sight) -> Ints:
    """Per flow where it was captured, as a number of :data:`SEEN_FROM`."""
    place = np.where(seen.passed == _UNKNOWN, _by_halves(client_address, server_address, seen), seen.passed)
    place = np.where((place == _BETWEEN) & (seen.unsummed != _UNKNOWN), seen.unsummed, place)
    silent = place == _UNKNOWN
    if not silent.any():
        return place
    # An address that captures stood at is likelier to be where this one stands, too.
    _, number = np.unique(np.concatenate((client_address, server_address)), return_inverse=True)
    client, server = number[: len(place)], number[len(place) :]
    told = ~silent & (place != _BETWEEN)
    near = np.where(place == _CLIENT, client, server)[told]
    far = np.where(place == _CLIENT, server, client)[told]
    votes = np.bincount(near, minlength=len(number)) - np.bincount(far, minlength=len(number))
    by_vote = np.choose(np.sign(votes[client] - votes[server]) + 1, (_SERVER, _BETWEEN, _CLIENT))
    return np.where(silent, by_vote, place)


def _by_halves(client_address: Ints, server_address: Ints, seen: Sight) -> Ints:
    if not len(client_address):
        return client_address
    _, pair = np.unique(np.stack((client_address, server_address)), axis=1, return_inverse=True)
    near = []
    for half in (seen.client_half, seen.server_half):
        smallest = np.full(int(pair.max()) + 1, _NO_HALF)
        np.minimum.at(smallest, pair, np.where(half >= 0, half, _NO_HALF))
        near.append(smallest[pair])
    known = (near[0] < _NO_HALF) & (near[1] < _NO_HALF)
    client, server = (np.where(known, half, 0) for half in near)
    share = client / np.maximum(client + server, 1)
    place = np.where(share <= NEAR, _CLIENT, np.where(share >= 1 - NEAR, _SERVER, _BETWEEN))
    return np.where(known & (client + server > 0), place, _UNKNOWN)
