"""Writes a capture again as pcapng with comments on some packets; everything else stays as it was.

The blocks of a pcapng file are copied byte by byte: sections, interfaces, clocks, names, statistics, unknown ones. Only
a packet that gets a comment gains an option, and a section that says how long it is no longer does: it would be wrong.
The records of a pcap file become enhanced packet blocks of one interface with its link type, snap length and clock.
(draft-ietf-opsawg-pcapng: section 3.5 for options, 4.1 to 4.3 for the blocks.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping

from ackward.capture.framing import Chunk, Framing
from ackward.capture.interfaces import INTERFACE, OPTION_END, OPTION_RESOLUTION, SECTION
from ackward.capture.octets import column
from ackward.capture.pcap import MAGICS, Pcap
from ackward.capture.pcapng import (
    BYTE_ORDER,
    ENHANCED_PACKET,
    OBSOLETE_PACKET,
    PACKETS,
    SECTION_TYPE,
    SHORTEST_BLOCK,
)

#: The packets from one number to before another that get a comment, with its text; numbers count in the file from 0.
Comments = Callable[[int, int], Mapping[int, str]]

OPTION_COMMENT, OPTION_APPLICATION = 1, 4
UNKNOWN_LENGTH = -1
#: Magic, version and length of the section, in a block.
SHORTEST_SECTION = 28
#: Where the frame stands in a packet block that can have options, and its captured length before it.
FRAME, CAPTURED = 28, 20
#: An option's length has 16 bits, and must be padded to four bytes.
LONGEST_COMMENT = 0xFFFC


def annotated(framing: Framing, comments: Comments) -> Iterator[bytes | memoryview]:
    """The file as pcapng, piece by piece; a piece is to be used before the next one is asked for.

    A packet in a simple packet block stays without its comment: that block has no place for one.
    """
    if isinstance(framing.form, Pcap):
        yield from _from_pcap(framing, comments)
    else:
        yield from _from_pcapng(framing, comments)


def _from_pcap(framing: Framing, comments: Comments) -> Iterator[bytes]:
    order, tick, header = MAGICS[framing.opening[:4]]
    snap_length, link = struct.unpack_from(order + "II", framing.opening, 16)
    section = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, UNKNOWN_LENGTH)
    yield _block("<", SECTION, section + _options("<", (OPTION_APPLICATION, b"ackward")))
    resolution = bytes([9 if tick == 1 else 6])
    interface = struct.pack("<HHI", link & 0xFFFF, 0, snap_length)
    yield _block("<", INTERFACE, interface + _options("<", (OPTION_RESOLUTION, resolution)))
    for chunk in framing:
        yield b"".join(_records(chunk, order + "u4", tick, header, comments))


def _records(chunk: Chunk, u32: str, tick: int, header: int, comments: Comments) -> Iterator[bytes]:
    frames = chunk.frames
    if not len(frames):
        return
    # As the record has it: framing gives no frame more captured than original bytes.
    original = column(chunk.octets.rows(frames.start - header, header), 12, u32).tolist()
    ticks = frames.time_ns // tick
    first = int(frames.number[0])
    told = comments(first, first + len(frames))
    data: memoryview = chunk.octets.raw.data
    pack = struct.Struct("<IIIII").pack
    columns = (frames.start, frames.captured, ticks >> 32, ticks & 0xFFFFFFFF)
    for number, (start, captured, high, low) in enumerate(
        zip(*(c.tolist() for c in columns), strict=True), first
    ):
        body: list[bytes | memoryview] = [
            pack(0, high, low, captured, original[number - first]),
            data[start : start + captured],
            bytes(-captured % 4),
        ]
        if number in told:
            body.append(_options("<", (OPTION_COMMENT, _text(told[number]))))
        yield _block("<", ENHANCED_PACKET, b"".join(body))


def _from_pcapng(framing: Framing, comments: Comments) -> Iterator[bytes | memoryview]:
    order, seen = "<", 0
    for chunk in framing:
        # Framing has found the lengths to be true, so here they are followed without a doubt.
        data: memoryview = chunk.octets.raw.data
        told = comments(seen, seen + (chunk.end - chunk.begin) // SHORTEST_BLOCK)
        copied = at = chunk.begin
        while at < chunk.end:
            if data[at : at + 4] == SECTION_TYPE:
                order = BYTE_ORDER[bytes(data[at + 8 : at + 12])]
            kind, length = struct.unpack_from(order + "II", data, at)
            if kind == SECTION and length >= SHORTEST_SECTION:
                yield data[copied : at + 16]
                yield struct.pack(order + "q", UNKNOWN_LENGTH)
                copied = at + 24
            if kind in PACKETS:
                if seen in told and kind in (ENHANCED_PACKET, OBSOLETE_PACKET):
                    yield data[copied:at]
                    yield _with_comment(data[at : at + length], order, _text(told[seen]))
                    copied = at + length
                seen += 1
            at += length
        yield data[copied : chunk.end]


def _with_comment(block: memoryview, order: str, text: bytes) -> bytes:
    (kind,), (captured,) = (
        struct.unpack_from(order + "I", block),
        struct.unpack_from(order + "I", block, CAPTURED),
    )
    options = FRAME + (captured + 3) // 4 * 4
    comment = _option(order, OPTION_COMMENT, text)
    rest = bytes(block[options:-4]) or _option(order, OPTION_END, b"")
    return _block(order, kind, bytes(block[8:options]) + comment + rest)


def _text(comment: str) -> bytes:
    """A comment as it is stored; one that is too long is cut between two characters."""
    return comment.encode()[:LONGEST_COMMENT].decode(errors="ignore").encode()


def _options(order: str, *options: tuple[int, bytes]) -> bytes:
    return b"".join(_option(order, code, value) for code, value in (*options, (OPTION_END, b"")))


def _option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(order: str, kind: int, body: bytes) -> bytes:
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length
