"""The interfaces that a pcapng file describes: link types, clocks and names, kept as arrays to look packets up in."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ackward.capture.frames import Trouble
from ackward.capture.octets import Octets, Positions

SECTION, INTERFACE, STATISTICS = 0x0A0D0D0A, 1, 5
OPTION_END, OPTION_NAME, OPTION_DROPPED, OPTION_RESOLUTION, OPTION_OFFSET = 0, 2, 5, 9, 14
#: A file may describe any number of interfaces, with any number of options: this much is believed.
MOST_INTERFACES = 65_536
MOST_OPTIONS = 256
LONGEST_NAME = 256

SECOND = 1_000_000_000
#: The last whole second of which all nanoseconds fit into 63 bits: in the year 2262.
LAST_SECOND = (1 << 63) // SECOND - 1
#: ``ticks * multiplier // divisor`` for clocks in powers of ten; ``shift`` for clocks in powers of two, else -1.
INTERFACE_ROW: np.dtype[Any] = np.dtype(
    [
        ("link", "i4"),
        ("snap_length", "i8"),
        ("multiplier", "u8"),
        ("divisor", "u8"),
        ("shift", "i8"),
        ("offset_s", "i8"),
    ]
)
#: Stands behind all others for packets of an interface that nobody described.
NOBODY = (-1, 0, 1, 1, -1, 0)


class Interfaces:
    """All interfaces of a file, numbered through its sections."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.surplus = Trouble(
            f"interfaces beyond the {MOST_INTERFACES} that are believed: {{count}}",
            "packets of the others were left out",
        )
        self._rows: list[tuple[int, ...]] = []
        self._table = np.array([NOBODY], INTERFACE_ROW)
        self._section_begins = 0
        self._dropped: dict[int, int] = {}

    @property
    def lost(self) -> int | None:
        """Packets that the capturing program lost, by its own last word on each interface; null if it said nothing."""
        return sum(self._dropped.values()) if self._dropped else None

    def describe(
        self,
        octets: Octets,
        at: Positions,
        lengths: Positions,
        types: NDArray[np.int64],
        order: str,
        offset: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Takes note of the sections and interfaces among these blocks; ``offset`` is where octet 0 is in the file.

        Gives for each block the first interface of its section, and the first behind its section.
        """
        begins = [self._section_begins]
        described = len(self._rows)
        for index in np.flatnonzero(
            (types == SECTION) | (types == INTERFACE) | (types == STATISTICS)
        ).tolist():
            if types[index] == SECTION:
                begins.append(len(self._rows))
                continue
            body = octets.raw[at[index] + 8 : at[index] + lengths[index] - 4].data
            if types[index] == STATISTICS:
                self._take_statistics(body, order, begins[-1])
            elif len(self._rows) >= MOST_INTERFACES:
                self.surplus.note(1, offset + int(at[index]))
            else:
                self._take_interface(body, order)
        if len(self._rows) != described:
            # Only what is new: a file may describe one more in every chunk.
            new = np.array([*self._rows[described:], NOBODY], INTERFACE_ROW)
            self._table = np.concatenate((self._table[:-1], new))
        self._section_begins = begins[-1]
        section = np.cumsum(types == SECTION)
        beyond = np.array([*begins[1:], len(self._rows)])
        return np.array(begins)[section], beyond[section]

    def _take_interface(self, body: memoryview, order: str) -> None:
        link, snap_length = 0, 0
        if len(body) >= 8:
            link, _, snap_length = struct.unpack_from(order + "HHI", body)
        name, resolution, offset_s = "", 6, 0
        for code, value in _options(body[8:], order):
            if code == OPTION_NAME:
                name = bytes(value[:LONGEST_NAME]).decode(errors="replace")
            elif code == OPTION_RESOLUTION and len(value) >= 1:
                resolution = value[0]
            elif code == OPTION_OFFSET and len(value) >= 8:
                (offset_s,) = struct.unpack_from(order + "q", value)
        self.names.append(name)
        self._rows.append((link, snap_length, *_clock(resolution), offset_s))

    def _take_statistics(self, body: memoryview, order: str, section_begins: int) -> None:
        if len(body) < 12:
            return
        interface = section_begins + int(struct.unpack_from(order + "I", body)[0])
        for code, value in _options(body[12:], order):
            if code == OPTION_DROPPED and len(value) >= 8 and interface < len(self._rows):
                (self._dropped[interface],) = struct.unpack_from(order + "Q", value)

    def links(self, interface: NDArray[np.int64]) -> NDArray[np.int32]:
        """The link type of each packet."""
        return self._table["link"][interface]

    def snapped(self, interface: NDArray[np.int64], original: Positions) -> Positions:
        """How much of a packet of this length an interface keeps."""
        limit = self._table["snap_length"][interface]
        return np.where(limit == 0, original, np.minimum(original, limit))

    def times(
        self, interface: NDArray[np.int64], ticks: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Nanoseconds since the epoch, and whether they are that: before 1970 or after 2262 they are 0 and false."""
        # With one clock NumPy spreads its numbers by itself.
        row = self._table[0] if len(self._rows) == 1 else self._table[interface]
        multiplier, divisor, shift, offset_s = (
            row[name] for name in ("multiplier", "divisor", "shift", "offset_s")
        )
        sane = (ticks <= np.uint64(LAST_SECOND * SECOND) // multiplier) | (divisor > 1)
        time_ns = ticks * multiplier // divisor if np.any(divisor != 1) else ticks * multiplier
        binary = shift >= 0
        if np.any(binary):
            in_seconds, nanoseconds = _binary_clock(ticks, np.maximum(shift, 0))
            sane = np.where(binary, in_seconds <= LAST_SECOND, sane)
            time_ns = np.where(binary, in_seconds * np.uint64(SECOND) + nanoseconds, time_ns)
        time_ns = np.where(sane, time_ns, 0).astype(np.int64)
        if np.any(offset_s):
            seconds = time_ns // SECOND + np.clip(offset_s, -2 * LAST_SECOND, 2 * LAST_SECOND)
            sane &= (seconds >= 0) & (seconds < LAST_SECOND)
            time_ns = np.where(sane, np.where(sane, seconds, 0) * SECOND + time_ns % SECOND, 0)
        return time_ns, sane


def _binary_clock(
    ticks: NDArray[np.uint64], shift: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Seconds and nanoseconds of a clock that ticks 2 ** ``shift`` times a second."""
    whole = np.minimum(shift, 63).astype(np.uint64)
    seconds = np.where(shift > 63, np.uint64(0), ticks >> whole)
    fraction = ticks - np.where(shift > 63, np.uint64(0), seconds << whole)
    # Nanoseconds need 30 bits of the fraction: the rest is dropped before the product would overflow.
    surplus = np.minimum(np.maximum(shift - 34, 0), 63).astype(np.uint64)
    kept = np.minimum(shift, 34).astype(np.uint64)
    nanoseconds = (fraction >> surplus) * np.uint64(SECOND) >> kept
    return seconds, np.where(shift > 97, np.uint64(0), nanoseconds)


def _clock(resolution: int) -> tuple[int, int, int]:
    """Multiplier, divisor and shift of ``if_tsresol``: ticks a second as a power of ten, or of two (top bit)."""
    if resolution & 0x80:
        return 1, 1, resolution & 0x7F
    if resolution <= 9:
        return 10 ** (9 - resolution), 1, -1
    return 1, 10 ** min(resolution - 9, 19), -1


def _options(body: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    at = 0
    for _ in range(MOST_OPTIONS):
        if at + 4 > len(body):
            return
        code, length = struct.unpack_from(order + "HH", body, at)
        if code == OPTION_END or at + 4 + length > len(body):
            return
        yield code, body[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
