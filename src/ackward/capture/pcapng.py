"""The next generation capture format (draft-ietf-opsawg-pcapng): sections of blocks, several interfaces, own clocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ackward.capture.chain import Chain, Link
from ackward.capture.frames import LONGEST_RECORD, Broken, Frames, Problem, Trouble
from ackward.capture.interfaces import SECTION, Interfaces
from ackward.capture.octets import Octets, Positions, column
from ackward.model.segments import Passage

OBSOLETE_PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 2, 3, 6
PACKETS = (ENHANCED_PACKET, OBSOLETE_PACKET, SIMPLE_PACKET)
#: The byte-order magic of a section whose byte order is the one we read in.
USUAL = 0x1A2B3C4D
SECTION_TYPE = b"\x0a\x0d\x0d\x0a"
BYTE_ORDER = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
#: A block is at least its type, its length and its length again.
SHORTEST_BLOCK = 12
#: How much of the front of a packet block is read: the fixed part of the longest of the three kinds.
FRONT = 28
#: The option of an enhanced packet block whose lowest two bits tell a packet's direction (section 4.3), of this length.
FLAGS_OPTION, FLAGS_LENGTH = 2, 4
DIRECTION = 3
#: What the direction (unknown, inbound, outbound, and the one that is not defined) says of a packet.
PASSAGES = np.array([0, Passage.ARRIVED, Passage.LEFT, 0], np.uint8)
#: So many options are looked through for it: programs write it first, behind a comment at most.
MOST_OPTIONS = 4
#: More changes of byte order than this are not a capture but an attempt to make us start over for ever.
MOST_TURNS = 1_000


class PcapNg:
    """The blocks of one file."""

    def __init__(self) -> None:
        self._order = ""
        self._chain: Chain | None = None
        self._table = Interfaces()
        self._seen = 0
        self._turns = 0
        self._last_time = 0
        self._untimed = Trouble(
            "packets that carry no time (simple packet blocks): {count}",
            "each was given the time of the packet before it",
        )
        self._astray = Trouble(
            "packets of no interface that the file describes: {count}", "they were left out"
        )
        self._short = Trouble(
            "packet blocks shorter than the packet they claim: {count}", "they were left out"
        )
        self._absurd = Trouble("packets with a time outside 1970 to 2262: {count}", "they were left out")

    @property
    def interfaces(self) -> list[str]:
        """See :class:`~ackward.capture.frames.Format`."""
        return self._table.names

    @property
    def lost(self) -> int | None:
        """See :class:`~ackward.capture.frames.Format`."""
        return self._table.lost

    def frame(self, octets: Octets, begin: int, end: int, offset: int) -> tuple[Frames, int]:
        """See :class:`~ackward.capture.frames.Format`."""
        if end - begin < SHORTEST_BLOCK:
            return _no_frames(), begin
        if self._chain is None or octets.u32[begin] == SECTION:
            self._take_order(octets, begin, offset)
        assert self._chain is not None
        at = self._chain.follow(octets, begin, end, lambda at, width: self._plausible(octets, at, width, end))
        types = self._numbers(octets, at)
        lengths = self._chain.link.lengths(octets, at)
        at, lengths, types, done = self._believable(octets, at, lengths, types, end, offset)
        if not len(at):
            return _no_frames(), done
        first, beyond = self._table.describe(octets, at, lengths, types, self._order, offset)
        packets = np.flatnonzero(_packets(types))
        blocks = _Blocks(at, lengths, types, first, beyond)
        return self._packets(
            octets, blocks if len(packets) == len(at) else blocks.select(packets), offset
        ), done

    def _take_order(self, octets: Octets, begin: int, offset: int) -> None:
        magic = octets.raw[begin + 8 : begin + 12].tobytes()
        if magic not in BYTE_ORDER:
            raise Broken(f"a section begins with the byte-order magic {magic.hex()}", offset + begin)
        if BYTE_ORDER[magic] != self._order:
            self._turns += 1
            if self._turns > MOST_TURNS:
                raise Broken(f"the byte order changes more than {MOST_TURNS} times", offset + begin)
            self._order = BYTE_ORDER[magic]
            link = Link(4, 0, SHORTEST_BLOCK, SHORTEST_BLOCK, self._order)
            self._chain = Chain(link, alignment=4, turn=(SECTION, USUAL))

    def _numbers(self, octets: Octets, at: Positions) -> NDArray[np.int64]:
        view = octets.u32_little if self._order == "<" else octets.u32
        return view[at].astype(np.int64)

    def _believable(
        self,
        octets: Octets,
        at: Positions,
        lengths: Positions,
        types: NDArray[np.int64],
        end: int,
        offset: int,
    ) -> tuple[Positions, Positions, NDArray[np.int64], int]:
        """The whole blocks before the first lie and before the first section of another byte order."""
        whole = at + lengths <= end
        closing = np.where(whole, at + lengths - 4, at + 4)
        lies = (lengths < SHORTEST_BLOCK) | (lengths % 4 != 0) | (lengths > LONGEST_RECORD)
        lies[~lies] = self._numbers(octets, closing[~lies]) != lengths[~lies]
        sections = types == SECTION
        turns = sections.copy()
        turns[sections] = self._numbers(octets, at[sections] + 8) != USUAL
        wrong = np.flatnonzero(lies | turns | ~whole)
        if not len(wrong):
            return at, lengths, types, int(at[-1] + lengths[-1])
        first = int(wrong[0])
        if first == 0 and lies[first]:
            raise Broken(_lie(lengths[0]), offset + int(at[0]))
        return at[:first], lengths[:first], types[:first], int(at[first])

    def _packets(self, octets: Octets, blocks: _Blocks, offset: int) -> Frames:
        at, room, start = blocks.at, blocks.lengths - 32, blocks.at + 28
        fronts = octets.rows(at, FRONT)
        u32 = self._order + "u4"
        interface, high, low, captured, original = (
            column(fronts, field, u32).astype(np.int64) for field in (8, 12, 16, 20, 24)
        )
        simple = blocks.types == SIMPLE_PACKET
        obsolete = blocks.types == OBSOLETE_PACKET
        if obsolete.any():  # a 16-bit interface and a 16-bit count of drops
            interface[obsolete] = column(fronts, 8, self._order + "u2")[obsolete]
        if simple.any():  # nothing but the original length
            original[simple] = interface[simple]
            interface[simple] = 0
            room[simple] = blocks.lengths[simple] - 16
            start[simple] = at[simple] + 12
        interface += blocks.first
        known = interface < blocks.beyond
        interface[~known] = -1
        if simple.any():
            captured[simple] = np.minimum(self._table.snapped(interface, original), room)[simple]
        number = np.arange(self._seen, self._seen + len(at))
        self._seen += len(at)

        fits = captured <= room
        time_ns, sane = self._table.times(interface, (high << 32 | low).view(np.uint64))
        time_ns = self._borrowed(time_ns, simple | ~sane)
        sane |= simple
        self._note(self._astray, ~known, offset, at)
        self._note(self._short, known & ~fits, offset, at)
        self._note(self._absurd, known & fits & ~sane, offset, at)
        self._note(self._untimed, known & fits & simple, offset, at)
        frames = Frames(
            start=start,
            captured=captured,
            original=np.maximum(original, captured),
            time_ns=time_ns,
            link=self._table.links(interface),
            interface=interface.astype(np.int32),
            number=number,
            passage=self._passage(octets, blocks, start + captured, (blocks.types == ENHANCED_PACKET) & fits),
        )
        good = known & fits & sane
        return frames if good.all() else frames.select(good)

    def _passage(
        self, octets: Octets, blocks: _Blocks, behind: Positions, having: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """What the options tell that begin ``behind`` the packets, padded to 32 bits, of blocks ``having`` some."""
        passage = np.zeros(len(having), np.uint8)
        shorts = octets.view(self._order + "u2")
        ends = blocks.at + blocks.lengths - 4
        at = (behind + 3) & -4
        for _ in range(MOST_OPTIONS):
            having = having & (at + 4 + FLAGS_LENGTH <= ends)
            which = np.flatnonzero(having)
            if not len(which):
                break
            code, length = shorts[at[which]], shorts[at[which] + 2].astype(np.int64)
            flags = (code == FLAGS_OPTION) & (length == FLAGS_LENGTH)
            found = which[flags]
            passage[found] = PASSAGES[self._numbers(octets, at[found] + 4) & DIRECTION]
            having[which[flags | (code == 0)]] = False
            at[which] += 4 + (length + 3 & -4)
        return passage

    def _note(self, trouble: Trouble, having: NDArray[np.bool_], offset: int, at: Positions) -> None:
        if having.any():
            trouble.note(int(np.count_nonzero(having)), offset + int(at[having.argmax()]))

    def _borrowed(self, time_ns: NDArray[np.int64], without: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The times, with those of packets without one taken from the packet before."""
        if without.any():
            source = np.maximum.accumulate(np.where(without, -1, np.arange(len(time_ns))))
            time_ns = np.where(source < 0, self._last_time, time_ns[source])
        if len(time_ns):
            self._last_time = int(time_ns[-1])
        return time_ns

    def _plausible(self, octets: Octets, at: Positions, width: int, end: int) -> NDArray[np.bool_]:
        """Whether an enhanced packet block stands here that ends with its length, and another packet block follows."""
        types = octets.windows(at, width, 4, 0, self._order + "u4")
        good: NDArray[np.bool_] = types == ENHANCED_PACKET
        found = np.flatnonzero(good)
        here = at[found // (width // 4)] + found % (width // 4) * 4
        lengths = self._numbers(octets, here + 4)
        sane = (lengths >= 32) & (lengths % 4 == 0) & (here + lengths + SHORTEST_BLOCK <= end)
        following = (here + lengths)[sane]
        agree = self._numbers(octets, following - 4) == lengths[sane]
        sane[sane] = agree & _packets(self._numbers(octets, following))
        good.ravel()[found] = sane
        return good

    def problems(self, file: str) -> list[Problem]:
        """See :class:`~ackward.capture.frames.Format`."""
        troubles = (self._untimed, self._astray, self._short, self._absurd, self._table.surplus)
        found = [trouble.problem(file) for trouble in troubles]
        return [problem for problem in found if problem]


@dataclass(frozen=True)
class _Blocks:
    """Blocks of a chunk; ``first`` and ``beyond`` bound the interfaces of the section that each is in."""

    at: Positions
    lengths: Positions
    types: NDArray[np.int64]
    first: NDArray[np.int64]
    beyond: NDArray[np.int64]

    def select(self, which: NDArray[np.intp]) -> _Blocks:
        return _Blocks(
            self.at[which], self.lengths[which], self.types[which], self.first[which], self.beyond[which]
        )


def _packets(types: NDArray[np.int64]) -> NDArray[np.bool_]:
    packets: NDArray[np.bool_] = (
        (types == ENHANCED_PACKET) | (types == OBSOLETE_PACKET) | (types == SIMPLE_PACKET)
    )
    return packets


def _lie(length: int) -> str:
    if length > LONGEST_RECORD:
        return f"a block claims {length} bytes"
    return f"a block claims {length} bytes, which its end does not confirm"


def _no_frames() -> Frames:
    none = np.zeros(0, np.int64)
    return Frames(
        none, none, none, none, none.astype(np.int32), none.astype(np.int32), none, none.astype(np.uint8)
    )
