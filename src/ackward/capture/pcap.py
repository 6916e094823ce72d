"""The classic capture format (draft-ietf-opsawg-pcap): a file header, then records of a 16-byte header and a frame."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from ackward.capture.chain import Chain, Link
from ackward.capture.frames import Broken, Frames, Problem
from ackward.capture.octets import Octets, Positions, column

FILE_HEADER, RECORD_HEADER = 24, 16
#: Magic number -> (byte order, nanoseconds a tick, bytes of a record's header). The last two are the
#: "modified" format of a patched libpcap, whose record headers carry eight bytes more.
MAGICS = {
    struct.pack(order + "I", magic): (order, tick, header)
    for order in "<>"
    for magic, tick, header in ((0xA1B2C3D4, 1000, 16), (0xA1B23C4D, 1, 16), (0xA1B2CD34, 1000, 24))
}
#: libpcap's MAXIMUM_SNAPLEN (sf-pcap.c refuses longer frames likewise).
LONGEST_FRAME = 262144
#: Used to guess records only: how far from the chunk's first one another's time may be, in seconds.
NEARBY_PAST, NEARBY_FUTURE = 60, 1 << 20


class Pcap:
    """The records of one file, whose header is ``opening``."""

    def __init__(self, opening: bytes) -> None:
        order, self._tick, self._header = MAGICS[opening[:4]]
        snap_length, link = struct.unpack(order + "II", opening[16:24])
        self._link = link & 0x3FFFFFF  # the rest tells of check sums at the end (LT_LINKTYPE in libpcap)
        self._longest = max(snap_length, LONGEST_FRAME) if snap_length < 1 << 26 else LONGEST_FRAME
        self._order = order
        self._u32 = order + "u4"
        self._chain = Chain(Link(8, self._header, 0, self._header, order), alignment=1)
        self._started = False
        self._seen = 0
        self.interfaces = [""]
        self.lost: int | None = None

    def frame(self, octets: Octets, begin: int, end: int, offset: int) -> tuple[Frames, int]:
        """See :class:`~ackward.capture.frames.Format`."""
        if not self._started:
            self._started = True
            return self._frames(octets, np.zeros(0, np.int64)), begin + FILE_HEADER
        if end - begin < self._header:
            return self._frames(octets, np.zeros(0, np.int64)), begin
        first_second = int(octets.view(self._u32)[begin])

        def plausible(at: Positions, width: int) -> NDArray[np.bool_]:
            return self._plausible(octets, at, width, first_second, end)

        at = self._chain.follow(octets, begin, end, plausible)
        lengths = self._chain.link.lengths(octets, at)
        # A disk that was full or a machine that crashed leaves zeros: they would pass for records of nothing.
        nothing = (octets.rows(at, RECORD_HEADER).view(np.uint64) == 0).all(axis=1)
        lies = np.flatnonzero((lengths > self._longest + self._header) | nothing)
        done = int(at[-1] + lengths[-1])
        if len(lies):
            done = int(at[lies[0]])
            at = at[: lies[0]]
            if not len(at):
                claim = f"a record claims {lengths[0] - self._header} bytes of frame"
                raise Broken("only zeros follow" if nothing[0] else claim, offset + done)
        elif done > end:
            done = int(at[-1])
            at = at[:-1]
        return self._frames(octets, at), done

    def _frames(self, octets: Octets, at: Positions) -> Frames:
        headers = octets.rows(at, RECORD_HEADER)
        seconds, fraction, captured, original = (
            column(headers, field, self._u32).astype(np.int64) for field in (0, 4, 8, 12)
        )
        number = np.arange(self._seen, self._seen + len(at))
        self._seen += len(at)
        return Frames(
            start=at + self._header,
            captured=captured,
            original=np.maximum(original, captured),
            time_ns=seconds * 1_000_000_000 + fraction * self._tick,
            link=np.full(len(at), self._link, np.int32),
            interface=np.zeros(len(at), np.int32),
            number=number,
            passage=np.zeros(len(at), np.uint8),
        )

    def _plausible(
        self, octets: Octets, at: Positions, width: int, first_second: int, end: int
    ) -> NDArray[np.bool_]:
        """Whether a time near the first one and a sane length stand here, and where the next record would be."""
        seconds = octets.windows(at, width, 1, 0, self._u32)
        good: NDArray[np.bool_] = seconds - np.uint32(first_second - NEARBY_PAST & 0xFFFFFFFF) < NEARBY_FUTURE
        found = np.flatnonzero(good)
        here = at[found // width] + found % width
        sane = self._sane(octets, here)
        lengths = self._chain.link.lengths(octets, here)
        following = here + lengths
        inside = following + self._header < end
        sane &= inside
        sane[sane] = self._sane(octets, following[sane])
        good.ravel()[found] = sane
        return good

    def _sane(self, octets: Octets, at: Positions) -> NDArray[np.bool_]:
        fraction, captured, original = (
            column(octets.rows(at, RECORD_HEADER), field, self._u32) for field in (4, 8, 12)
        )
        return (
            (fraction < 1_000_000_000 // self._tick)
            & (captured > 0)
            & (captured <= LONGEST_FRAME)
            & (captured <= original)
        )

    def problems(self, file: str) -> list[Problem]:  # noqa: ARG002 - the format has nowhere to tell of any
        """See :class:`~ackward.capture.frames.Format`."""
        return []
