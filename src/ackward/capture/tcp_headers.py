"""TCP headers and options (RFC 9293 section 3.1) of a whole chunk at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ackward.capture.frames import Frames
from ackward.capture.headers import (
    BAD,
    CUT,
    FAMILY_6,
    NOT_ASKED,
    PACKET_TYPE_LINKS,
    TCP,
    TYPE_OUTGOING,
    TYPE_TO_US,
    Layers,
    Packets,
)
from ackward.capture.octets import Octets, Positions, column, distinct
from ackward.capture.rows import Rows
from ackward.capture.selection import ADDRESS_SHIFT, TUNNEL_BITS, TUNNEL_SHIFT, Selection
from ackward.model.segments import Flag, Passage

SHORTEST, LONGEST = 20, 60
OPTION_END, OPTION_NOP, OPTION_MSS, OPTION_SCALE, OPTION_SACK_OK, OPTION_SACK, OPTION_TIMES, OPTION_MPTCP = (
    0, 1, 2, 3, 4, 5, 8, 30
)  # fmt: skip
#: Two no-operations and a timestamp option, as Linux, BSD and Windows send them (RFC 7323 appendix A).
ALIGNED_TIMES = 0x0101080A
#: A window scale in a SYN that had none, and in one whose options were not captured.
NO_SCALE, SCALE_NOT_SEEN = -1, -2

#: What only SYN segments tell. ``row`` is the segment's index, ``mss`` 0 if the option is absent.
HANDSHAKE: np.dtype[Any] = np.dtype([("row", "i8"), ("mss", "u2"), ("scale", "i1"), ("sack", "?")])


@dataclass(frozen=True)
class Decoded:
    """The segments of a chunk. ``frame`` is the index of each in the chunk's frames.

    ``rows["flow"]`` and ``rows["to_server"]`` are not set, ``rows["packet"]`` counts from 0 in the file and
    ``rows["window"]`` is as sent. ``source`` and ``destination`` are codes of endpoints: address, port, tunnel.
    """

    rows: NDArray[Any]
    frame: NDArray[np.int64]
    source: NDArray[np.uint64]
    destination: NDArray[np.uint64]
    handshakes: NDArray[Any]
    mptcp: NDArray[np.bool_]
    cut: bool


def decode(octets: Octets, frames: Frames, layers: Layers, selection: Selection, collected: Rows) -> Decoded:
    """The selected TCP segments in these frames, added to ``collected``; others are counted in ``layers.skipped``."""
    packets = layers.segments(octets, frames)
    packets = layers.keep(packets, packets.at + SHORTEST <= packets.end, CUT)
    heads = octets.rows(packets.at, 32)  # as long as most are
    length = (heads[:, 12] >> 4).astype(np.int64) * 4
    payload = packets.wire_end - packets.at - length
    good = (length >= SHORTEST) & (payload >= 0)
    if not good.all():
        packets = layers.keep(packets, good, BAD)
        heads, length, payload = heads[good], length[good], payload[good]
    source, destination = _endpoints(packets, heads)
    asked = selection.holds(source, destination, layers)
    if asked is not None and not asked.all():
        packets = layers.keep(packets, asked, NOT_ASKED)
        heads, length, payload = heads[asked], length[asked], payload[asked]
        source, destination = source[asked], destination[asked]

    rows = collected.room(len(packets))
    rows["time_ns"] = frames.time_ns[packets.row]
    rows["packet"] = frames.number[packets.row]
    rows["seq"] = column(heads, 4, ">u4")
    rows["ack"] = column(heads, 8, ">u4")
    rows["bytes"] = payload
    rows["window"] = column(heads, 14, ">u2")
    rows["tcp_flags"] = heads[:, 13]
    rows["segments"] = 1
    _passage(octets, frames, packets, heads, layers, rows)
    whole = packets.at + length <= packets.end
    handshakes, mptcp = _options(octets, packets.at, length, whole, heads, rows)
    return Decoded(
        rows,
        packets.row,
        source,
        destination,
        handshakes,
        mptcp,
        bool((packets.wire_end > packets.end).any()),
    )


def _endpoints(packets: Packets, heads: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Codes of the two ends. The halves of a tunnel's number go to the lower and the higher end, whoever sent."""
    source = packets.source << np.uint64(ADDRESS_SHIFT) | column(heads, 0, ">u2")
    destination = packets.destination << np.uint64(ADDRESS_SHIFT) | column(heads, 2, ">u2")
    if packets.tunnel.any():
        low = (packets.tunnel & np.uint64((1 << TUNNEL_BITS) - 1)) << np.uint64(TUNNEL_SHIFT)
        high = packets.tunnel >> np.uint64(TUNNEL_BITS) << np.uint64(TUNNEL_SHIFT)
        first = source <= destination
        source, destination = (
            source | np.where(first, low, high),
            destination | np.where(first, high, low),
        )
    return source, destination


def _passage(
    octets: Octets,
    frames: Frames,
    packets: Packets,
    heads: NDArray[np.uint8],
    layers: Layers,
    rows: NDArray[Any],
) -> None:
    """Fills in what the packets outside of tunnels tell of the host that captured them: :class:`Passage`.

    A cooked capture has the kernel's word, and a pcapng file may have that of the program that wrote it. A host whose
    network card computes checksums leaves the sum of the pseudo-header in the field (``CHECKSUM_PARTIAL`` in
    include/linux/skbuff.h; RFC 9293 section 3.1). It is looked for in SYNs, whose headers alone it covers.
    """
    rows["passage"] = np.where(packets.tunnel == 0, frames.passage[packets.row], 0)
    for link in distinct(frames.link):
        if link in PACKET_TYPE_LINKS:
            there = np.flatnonzero((frames.link[packets.row] == link) & (packets.tunnel == 0))
            kind = octets.raw[frames.start[packets.row[there]] + PACKET_TYPE_LINKS[link] - 1]
            rows["passage"][there[kind == TYPE_OUTGOING]] = Passage.LEFT
            rows["passage"][there[kind == TYPE_TO_US]] = Passage.ARRIVED
    syn = np.flatnonzero((rows["tcp_flags"] & Flag.SYN > 0) & (packets.tunnel == 0))
    if not len(syn):
        return
    length = (packets.wire_end - packets.at)[syn].astype(np.uint64)
    total = _words(packets.source[syn], layers) + _words(packets.destination[syn], layers)
    total += length + np.uint64(TCP)
    # Sums of 16-bit words in one's complement are sums modulo 65535, and so is a longer number that they make up.
    unsummed = total % np.uint64(0xFFFF) == column(heads, 16, ">u2")[syn] % np.uint64(0xFFFF)
    rows["passage"][syn[unsummed]] |= np.uint8(Passage.UNSUMMED)


def _words(address: NDArray[np.uint64], layers: Layers) -> NDArray[np.uint64]:
    """The sum of the 16-bit words of addresses, modulo 65535."""
    modulus = np.uint64(0xFFFF)
    sixth = address >= FAMILY_6
    if not sixth.any():
        return address % modulus
    number = np.where(sixth, address & np.uint64(FAMILY_6 - 1), 0).astype(np.int64)
    halves = layers.addresses.high[number] % modulus + layers.addresses.low[number] % modulus
    return np.where(sixth, halves, address) % modulus


def _options(
    octets: Octets,
    at: Positions,
    length: Positions,
    whole: NDArray[np.bool_],
    heads: NDArray[np.uint8],
    rows: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Fills in timestamps and SACK blocks; gives what SYNs tell, and which segments show that both ends speak MPTCP.

    A SYN alone only offers it (RFC 8684 section 3.1). Options of a header that was cut are not read.
    """
    mptcp = np.zeros(len(rows), np.bool_)
    syn = (rows["tcp_flags"] & (Flag.SYN | Flag.RST | Flag.FIN)) == Flag.SYN
    handshakes = np.zeros(np.count_nonzero(syn), HANDSHAKE)
    handshakes["row"] = np.flatnonzero(syn)
    handshakes["scale"] = np.where(whole[syn], NO_SCALE, SCALE_NOT_SEEN)

    aligned = whole & (length >= 32) & (column(heads, 20, ">u4") == ALIGNED_TIMES)
    for name, field in (("tsval", 24), ("tsecr", 28)):
        told = column(heads, field, ">u4")
        rows[name] = told if aligned.all() else np.where(aligned, told, 0)
    start = np.where(aligned, 32, SHORTEST)
    row = np.flatnonzero(whole & (length > start))
    here, end = (at + start)[row], (at + length)[row]
    place = np.cumsum(syn) - 1  # of a SYN among the handshakes
    while len(row):
        kind = octets.raw[here]
        size = np.where(kind == OPTION_NOP, 1, octets.raw[here + 1].astype(np.int64))
        on = (kind != OPTION_END) & (here + size <= end) & (size >= np.where(kind == OPTION_NOP, 1, 2))
        row, here, end, kind, size = row[on], here[on], end[on], kind[on], size[on]
        if not len(row):
            break
        _take(octets, kind, size, here, row, rows)
        mptcp[row[kind == OPTION_MPTCP]] = True
        opening = syn[row]
        if opening.any():
            _take_handshake(
                octets, kind[opening], size[opening], here[opening], place[row[opening]], handshakes
            )
        here = here + size
        on = here < end
        row, here, end = row[on], here[on], end[on]
    mptcp &= (rows["tcp_flags"] & (Flag.SYN | Flag.ACK)) != Flag.SYN
    return handshakes, mptcp


def _take(
    octets: Octets,
    kind: NDArray[np.uint8],
    size: Positions,
    here: Positions,
    row: NDArray[np.intp],
    rows: NDArray[Any],
) -> None:
    times = (kind == OPTION_TIMES) & (size == 10)
    if times.any():
        rows["tsval"][row[times]] = octets.u32[here[times] + 2]
        rows["tsecr"][row[times]] = octets.u32[here[times] + 6]
    blocks = (kind == OPTION_SACK) & (size >= 10)
    if blocks.any():
        _take_sack(octets, size[blocks], here[blocks], row[blocks], rows)


def _take_sack(
    octets: Octets, size: Positions, here: Positions, row: NDArray[np.intp], rows: NDArray[Any]
) -> None:
    """The first block, and whether it is a D-SACK: below the ACK, or within the second block (RFC 2883 section 4)."""
    left, right = octets.u32[here + 2], octets.u32[here + 6]
    rows["sack_left"][row], rows["sack_right"][row] = left, right
    rows["dsack"][row] = _before(left, rows["ack"][row])
    two = np.flatnonzero(size >= 18)
    outer_left, outer_right = octets.u32[here[two] + 10], octets.u32[here[two] + 14]
    rows["dsack"][row[two]] |= ~_before(left[two], outer_left) & ~_before(outer_right, right[two])


def _before(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether sequence numbers come before others (RFC 9293 section 3.4)."""
    earlier: NDArray[np.bool_] = (one - other).astype(np.int32) < 0
    return earlier


def _take_handshake(
    octets: Octets,
    kind: NDArray[np.uint8],
    size: Positions,
    here: Positions,
    place: NDArray[np.intp],
    handshakes: NDArray[Any],
) -> None:
    mss = (kind == OPTION_MSS) & (size == 4)
    handshakes["mss"][place[mss]] = octets.u16[here[mss] + 2]
    scale = (kind == OPTION_SCALE) & (size == 3)
    # RFC 7323 section 2.3: a larger shift is to be taken for 14.
    handshakes["scale"][place[scale]] = np.minimum(octets.raw[here[scale] + 2], 14)
    handshakes["sack"][place[(kind == OPTION_SACK_OK) & (size == 2)]] = True
