"""Which segments belong to one connection, and which end of it is the client.

Works on the segments of all files together, sorted, column by column. The laws:

* A flow begins with the first segment between two endpoints, and again with each handshake that has another initial
  sequence number or comes from the other end: the ports were used again.
* A SYN names the client, and a SYN-ACK the server (``role_seen``). Else the end is the server that accepted
  other connections in this capture, or whose port did; else the one whose port is no ephemeral one while the
  other's is; else the one that did not send first.
* Windows are scaled where the options of both SYNs were seen (RFC 7323 section 2.2), else left as sent.
* A packet that offload merged counts as ``bytes / mss`` segments, rounded up. The MSS is the smaller one of
  those in the SYNs, less the 12 bytes of timestamps (RFC 6691). Without a SYN it is the most plausible one of
  that direction: the largest payload if that is one of jumbo frames, else the largest that fits a frame of
  1500 bytes and is near it, else that of such a frame.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ackward.capture.headers import Layers
from ackward.capture.interning import Interning
from ackward.capture.rows import Rows
from ackward.capture.selection import ADDRESS_SHIFT, TUNNEL_BITS, TUNNEL_SHIFT
from ackward.capture.tcp_headers import SCALE_NOT_SEEN
from ackward.model.segments import Endpoint, Flag

#: One row a flow. ``client`` and ``server`` are codes of endpoints; ``begin`` and ``count`` say which
#: segments are its own; an ``mss`` is 0 where that end's SYN was not seen or had none.
FLOW: np.dtype[Any] = np.dtype(
    [
        ("client", "u8"),
        ("server", "u8"),
        ("begin", "i8"),
        ("count", "i8"),
        ("first_ns", "i8"),
        ("last_ns", "i8"),
        ("client_mss", "u2"),
        ("server_mss", "u2"),
        ("client_scale", "u1"),
        ("server_scale", "u1"),
        ("role_seen", "?"),
        ("window_scale_known", "?"),
        ("sack_permitted", "?"),
        ("mptcp", "?"),
    ]
)
_ADDRESS = (1 << TUNNEL_SHIFT - ADDRESS_SHIFT) - 1
#: From here on Linux gives ports to clients (net.ipv4.ip_local_port_range); Windows and BSD from 49152 on (RFC 6335).
FIRST_EPHEMERAL = 32768
#: A segment before the SYN belongs to its connection if it is so near to the initial sequence number: it was
#: reordered.
REORDERED = 1 << 20
#: A timestamp option with its padding, in bytes of a segment.
TIMES = 12
#: The least payload that a packet is taken to be made of (Linux: TCP_MIN_SND_MSS less the options).
LEAST_MSS = 36
ETHERNET_MSS, NEAR_ETHERNET_MSS = 1460, 1200
JUMBO_MSS = (8900, 8960)


@dataclass(frozen=True)
class WireFlow:
    """One connection as a capture shows it. Times in nanoseconds since the epoch, sizes in bytes.

    ``role_seen`` is false where the client was told from ports or order alone. ``segments`` is the slice of
    the capture's segments that are the flow's own.
    """

    number: int
    client: Endpoint
    server: Endpoint
    segments: slice
    role_seen: bool
    client_mss: int | None
    server_mss: int | None
    window_scale_known: bool
    sack_permitted: bool
    mptcp: bool
    first_ns: int
    last_ns: int
    tunnel: int | None = None


class WireFlows(Sequence[WireFlow]):
    """All flows of a capture: ``table`` (of dtype ``FLOW``) for columns, an index for one of them."""

    def __init__(self, table: NDArray[Any], layers: Layers) -> None:
        self.table = table
        # There are far fewer addresses than endpoints.
        self._address = functools.cache(layers.address_of)

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[WireFlow]:
        return (self._flow(number) for number in range(len(self.table)))

    @overload
    def __getitem__(self, index: int) -> WireFlow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[WireFlow]: ...
    def __getitem__(self, index: int | slice) -> WireFlow | Sequence[WireFlow]:
        if isinstance(index, slice):
            return [self._flow(number) for number in range(*index.indices(len(self)))]
        return self._flow(range(len(self))[index])

    def endpoint(self, code: int) -> Endpoint:
        """The endpoint that a code in the table stands for."""
        return Endpoint(self._address(code >> ADDRESS_SHIFT & _ADDRESS), code & 0xFFFF)

    def addresses(self, end: Literal["client", "server"]) -> NDArray[np.int64]:
        """Of each flow a number that stands for the address of this end."""
        return (self.table[end] >> np.uint64(ADDRESS_SHIFT) & np.uint64(_ADDRESS)).astype(np.int64)

    def _flow(self, number: int) -> WireFlow:
        row = self.table[number]
        client, server = int(row["client"]), int(row["server"])
        begin = int(row["begin"])
        return WireFlow(
            number=number,
            client=self.endpoint(client),
            server=self.endpoint(server),
            segments=slice(begin, begin + int(row["count"])),
            role_seen=bool(row["role_seen"]),
            client_mss=int(row["client_mss"]) or None,
            server_mss=int(row["server_mss"]) or None,
            window_scale_known=bool(row["window_scale_known"]),
            sack_permitted=bool(row["sack_permitted"]),
            mptcp=bool(row["mptcp"]),
            first_ns=int(row["first_ns"]),
            last_ns=int(row["last_ns"]),
            tunnel=_tunnel(client, server),
        )


def _tunnel(client: int, server: int) -> int | None:
    """The VXLAN network identifier whose halves, plus one, are in the codes (``tcp_headers``)."""
    lower, higher = sorted((client, server), key=lambda code: code & ((1 << TUNNEL_SHIFT) - 1))
    number = (higher >> TUNNEL_SHIFT << TUNNEL_BITS) | lower >> TUNNEL_SHIFT
    return number - 1 if number else None


def assign(
    collected: Rows, pairs: Interning, handshakes: NDArray[Any], mptcp: NDArray[np.bool_], *, by_time: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The segments, sorted into flows, and the table of the flows.

    ``flow`` of what was collected is the number of the pair of endpoints in ``pairs``, whose smaller code is the
    key's ``low`` half, and ``to_server`` says whether that end sent. ``mptcp`` has one entry a pair.
    Segments of a flow stay in the order of the file, unless they are to be sorted ``by_time``: then that of
    the file decides among equal times.
    """
    order = _order(collected, by_time=by_time)
    rows = collected.taken(order)
    if not len(rows):
        return rows, np.zeros(0, FLOW)
    syns = _handshakes(rows, handshakes, order)
    del order

    pair_begins = np.append(0, np.flatnonzero(rows["flow"][1:] != rows["flow"][:-1]) + 1)
    begins = np.union1d(pair_begins, _new_handshakes(rows, syns, pair_begins))
    table = np.zeros(len(begins), FLOW)
    table["begin"] = begins
    table["count"] = np.diff(np.append(begins, len(rows)))
    pair = rows["flow"][begins]
    table["mptcp"] = mptcp[pair]
    table["first_ns"] = np.minimum.reduceat(rows["time_ns"], begins)
    table["last_ns"] = np.maximum.reduceat(rows["time_ns"], begins)

    low_is_client = _clients(rows, table, syns, pairs.low[pair], pairs.high[pair])
    table["client"] = np.where(low_is_client, pairs.low[pair], pairs.high[pair])
    table["server"] = np.where(low_is_client, pairs.high[pair], pairs.low[pair])
    rows["flow"] = np.repeat(np.arange(len(table), dtype=np.int32), table["count"])
    rows["to_server"] = rows["to_server"] == np.repeat(low_is_client, table["count"])
    _negotiate(rows, table, syns)
    _count_segments(rows, table)
    return rows, table


@dataclass(frozen=True)
class _Syns:
    """The segments that open connections, in the order of the flows; ``options`` is of dtype ``HANDSHAKE``.

    ``at`` is where they are among the sorted segments; ``isn`` the client's initial sequence number, and
    ``low_is_client`` the client, as each of them tells; ``answers`` are SYN-ACKs.
    """

    at: NDArray[np.int64]
    answers: NDArray[np.bool_]
    isn: NDArray[np.uint32]
    low_is_client: NDArray[np.bool_]
    pair: NDArray[np.int32]
    options: NDArray[Any]


def _order(collected: Rows, *, by_time: bool) -> NDArray[np.int64]:
    """The order of the segments by pair and then by file or time: one sort of numbers that hold both."""
    assert collected.count < 1 << 32
    key = np.arange(collected.count, dtype=np.uint64)
    pair = collected.column("flow").astype(np.uint64)
    ranked = None
    if by_time:
        time = collected.column("time_ns")
        if (time[1:] < time[:-1]).any():
            ranked = np.argsort(time, kind="stable")
            pair = pair[ranked]
    key |= pair << np.uint64(32)
    key.sort()
    key &= np.uint64(0xFFFFFFFF)
    order: NDArray[np.int64] = key.view(np.int64)
    if ranked is None:
        return order
    by_pair: NDArray[np.int64] = ranked[order]
    return by_pair


def _handshakes(rows: NDArray[Any], handshakes: NDArray[Any], order: NDArray[np.int64]) -> _Syns:
    """The opening segments among the rows, which were put into this order."""
    opening = np.zeros(len(rows), np.bool_)
    opening[handshakes["row"]] = True
    at = np.flatnonzero(opening[order])
    options = handshakes[np.searchsorted(handshakes["row"], order[at])]
    found = rows[at]
    answers = (found["tcp_flags"] & Flag.ACK) != 0
    return _Syns(
        at=at,
        answers=answers,
        isn=np.where(answers, found["ack"] - np.uint32(1), found["seq"]),
        low_is_client=found["to_server"] != answers,
        pair=found["flow"],
        options=options,
    )


def _new_handshakes(rows: NDArray[Any], syns: _Syns, pair_begins: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the handshakes of new connections begin."""
    if not len(syns.at):
        return syns.at
    first = np.append(True, syns.pair[1:] != syns.pair[:-1])
    new = first.copy()
    new[1:] |= (syns.isn[1:] != syns.isn[:-1]) | (syns.low_is_client[1:] != syns.low_is_client[:-1])
    # What a pair sent before its first SYN is an older connection, or belongs to this one and was reordered.
    begin = pair_begins[np.searchsorted(pair_begins, syns.at, side="right") - 1]
    before = first & (begin < syns.at)
    head = rows[begin[before]]
    number = np.where(head["to_server"] == syns.low_is_client[before], head["seq"], head["ack"])
    new[before] = number - syns.isn[before] >= REORDERED
    begins: NDArray[np.int64] = syns.at[new]
    return begins


def _clients(
    rows: NDArray[Any], table: NDArray[Any], syns: _Syns, low: NDArray[np.uint64], high: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Of each flow, whether the lower code is the client's; fills in ``role_seen``."""
    flow = np.searchsorted(table["begin"], syns.at, side="right") - 1
    low_is_client = np.zeros(len(table), np.bool_)
    low_is_client[flow] = syns.low_is_client
    seen = np.zeros(len(table), np.bool_)
    seen[flow] = True
    table["role_seen"] = seen
    if seen.all():
        return low_is_client
    servers = np.unique(np.where(low_is_client[seen], high[seen], low[seen]))
    port = np.uint64(0xFFFF)
    unsure = np.flatnonzero(~seen)
    low, high = low[unsure], high[unsure]
    ends = np.stack([low, high])
    answer = rows["to_server"][table["begin"][unsure]]  # the first to send, if nothing below tells
    for serves in (
        ends & port < FIRST_EPHEMERAL,
        np.isin(ends & port, np.unique(servers & port)),
        np.isin(ends, servers),
    ):
        answer = np.where(serves[0] != serves[1], serves[1], answer)
    low_is_client[unsure] = answer
    return low_is_client


def _negotiate(rows: NDArray[Any], table: NDArray[Any], syns: _Syns) -> None:
    """What the SYNs agreed on; scales the windows. Of SYNs that were sent again the last one counts."""
    flow = rows["flow"][syns.at]
    scales = []
    sack = np.ones(len(table), np.bool_)
    for end, chosen in (("client", ~syns.answers), ("server", syns.answers)):
        options, flows = syns.options[chosen], flow[chosen]
        scale = np.full(len(table), SCALE_NOT_SEEN, np.int8)
        scale[flows] = options["scale"]
        scales.append(scale)
        table[f"{end}_mss"][flows] = options["mss"]
        permitted = np.zeros(len(table), np.bool_)
        permitted[flows] = options["sack"]
        sack &= permitted
    table["sack_permitted"] = sack
    client, server = scales
    table["window_scale_known"] = (client != SCALE_NOT_SEEN) & (server != SCALE_NOT_SEEN)
    agreed = (client >= 0) & (server >= 0)
    table["client_scale"], table["server_scale"] = np.where(agreed, client, 0), np.where(agreed, server, 0)
    if agreed.any():
        shift = np.where(
            rows["to_server"],
            np.repeat(table["client_scale"], table["count"]),
            np.repeat(table["server_scale"], table["count"]),
        )
        shift[syns.at] = 0  # RFC 7323 section 2.2: the window of a SYN is never scaled
        rows["window"] <<= shift


def _count_segments(rows: NDArray[Any], table: NDArray[Any]) -> None:
    mss = np.minimum(
        np.where(table["client_mss"] == 0, 0xFFFF, table["client_mss"]),
        np.where(table["server_mss"] == 0, 0xFFFF, table["server_mss"]),
    ).astype(np.int64)
    mss[mss == 0xFFFF] = 0
    told = mss[mss > 0]
    least = min(ETHERNET_MSS, int(told.min())) if len(told) else ETHERNET_MSS
    large = np.flatnonzero(rows["bytes"] > max(least - TIMES, LEAST_MSS))
    if not len(large):
        return
    some = rows[large]
    limit = mss[some["flow"]]
    times = np.where((some["tsval"] | some["tsecr"]) != 0, TIMES, 0)
    untold = limit == 0
    limit -= times
    if untold.any():
        limit[untold] = _plausible_mss(rows, some[untold], times[untold])
    rows["segments"][large] = np.clip(
        -(-some["bytes"].astype(np.int64) // np.maximum(limit, LEAST_MSS)), 1, 0xFFFF
    )


def _plausible_mss(rows: NDArray[Any], large: NDArray[Any], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of large segments in flows without a SYN: what they were cut into, by what else went in their direction."""
    direction = large["flow"].astype(np.int64) * 2 + large["to_server"]
    directions, place = np.unique(direction, return_inverse=True)
    largest = np.zeros(len(directions), np.int64)
    np.maximum.at(largest, place, large["bytes"])
    fitting = np.zeros(len(directions), np.int64)
    candidates = rows[(rows["bytes"] >= NEAR_ETHERNET_MSS) & (rows["bytes"] <= ETHERNET_MSS)]
    of = candidates["flow"].astype(np.int64) * 2 + candidates["to_server"]
    where = np.minimum(np.searchsorted(directions, of), len(directions) - 1)
    same = directions[where] == of
    np.maximum.at(fitting, where[same], candidates["bytes"][same])
    jumbo = (largest >= JUMBO_MSS[0]) & (largest <= JUMBO_MSS[1])
    return np.where(
        jumbo[place], largest[place], np.where(fitting[place] > 0, fitting[place], ETHERNET_MSS - times)
    )
