"""What framing gives: the frames of a chunk of a capture file, and what was wrong with the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ackward.capture.octets import Octets, Positions

#: A block or record that claims more is taken for a lie: it would only make us fill memory with it.
LONGEST_RECORD = 64 << 20


@dataclass(frozen=True)
class Problem:
    """Something wrong with a capture, and what was done about it.

    ``offset`` counts bytes from the file's start, after decompression; null where no place can be named.
    ``next_step`` is what to do if nothing else can be read either, null if any capture would do.
    """

    file: str
    offset: int | None
    what: str
    done: str
    next_step: str | None = None

    def __str__(self) -> str:
        place = self.file if self.offset is None else f"{self.file}, byte {self.offset}"
        return f"{place}: {self.what}; {self.done}"


@dataclass(frozen=True)
class Frames:
    """Captured frames of one chunk, in the order of the file; all arrays have one entry a frame.

    ``start`` is the position of the frame's first byte in the chunk; ``captured`` and ``original`` are
    lengths in bytes as kept and on the wire; ``time_ns`` counts since the epoch; ``link`` is a LINKTYPE_
    number (tcpdump.org/linktypes.html); ``number`` counts the packets of the file from 0; ``passage`` is what the
    file says of each packet (:class:`~ackward.model.segments.Passage`).
    """

    start: Positions
    captured: Positions
    original: Positions
    time_ns: NDArray[np.int64]
    link: NDArray[np.int32]
    interface: NDArray[np.int32]
    number: NDArray[np.int64]
    passage: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.start)

    def select(self, which: NDArray[np.bool_] | NDArray[np.intp]) -> Frames:
        """These frames only."""
        return Frames(
            self.start[which],
            self.captured[which],
            self.original[which],
            self.time_ns[which],
            self.link[which],
            self.interface[which],
            self.number[which],
            self.passage[which],
        )


@dataclass
class Trouble:
    """One kind of trouble that many packets of a file can have: how many, and where it began."""

    what: str
    done: str
    count: int = 0
    first: int | None = None

    def note(self, count: int, offset: int) -> None:
        """``count`` more packets have it, the first of them at ``offset``."""
        if count and self.first is None:
            self.first = offset
        self.count += count

    def problem(self, file: str) -> Problem | None:
        """What to tell the user, if there is anything."""
        if not self.count:
            return None
        return Problem(file, self.first, self.what.format(count=self.count), self.done)


class Format(Protocol):
    """A capture format: turns bytes into frames, chunk after chunk. Holds what the file said about itself so far."""

    @property
    def interfaces(self) -> list[str]:
        """The interfaces' names, or empty strings, in the order in which the file describes them."""

    @property
    def lost(self) -> int | None:
        """Packets that the capturing program says it lost; null if the file does not tell."""

    def frame(self, octets: Octets, begin: int, end: int, offset: int) -> tuple[Frames, int]:
        """The whole frames between ``begin`` and ``end``, and up to where the bytes are done with.

        ``offset`` is the place of octet 0 in the file. Gives back ``begin`` if more bytes are needed to go on. Raises
        :class:`Broken` where the file makes no sense any more; frames before that are given first.
        """

    def problems(self, file: str) -> list[Problem]:
        """What was wrong and could be dealt with."""


class Broken(Exception):
    """The file makes no sense from ``offset`` on."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.what = what
        self.offset = offset
