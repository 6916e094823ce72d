"""Following a chain of records, each of which tells where the next one begins, on many lanes at once.

A chain is sequential: only at the end of a record is it known where the next one begins, and a Python loop
over it costs more than everything else that is done to a packet. So we *guess* places where a record might
begin, one every few kilobytes, and follow the chain from all of them together, one NumPy step for all lanes.
The laws that make the result exact however the guesses were made:

1. Lane 0 starts at a true record.
2. A lane ends at the first record at or behind the start of the next lane.
3. If a true lane ends exactly at the next lane's start, the next lane is true as well. At the first one that
   does not, everything behind is thrown away and the chain is taken up from the end of the last true lane.
4. After ``MOST_RETRIES`` bad guesses in a chunk the rest is followed record by record, so time stays linear in
   the size of the file whatever it holds.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ackward.capture.octets import Octets, Positions

#: Below this many lanes a step of NumPy costs more than as many steps of Python (measured).
FEWEST_LANES = 12
MOST_RETRIES = 4
#: All lanes take so many steps before those that have come to their end are taken out.
STEPS = 16
#: So many lanes for the square root of the number of records. Each lane costs a guess and each record of a lane a
#: step, so that their sum is least near some multiple of it (measured: 1 to 3 are alike).
LANES = 2.0
#: How far behind the beginning of a lane we look for a record, in steps: most are found in the first.
WINDOWS = ((0, 128), (128, 512), (512, 2048))


@dataclass(frozen=True)
class Link:
    """How a record tells its length: a 32-bit number at ``field``, to which ``extra`` is added, at least ``least``."""

    field: int
    extra: int
    least: int
    header: int
    order: str

    def lengths(self, octets: Octets, at: Positions) -> Positions:
        """The lengths of the records at these positions, as they claim."""
        view = octets.u32_little if self.order == "<" else octets.u32
        return view[at + self.field].astype(np.int64) + self.extra


#: Given window starts and a width in bytes: may a record begin here? One row a window, one column an aligned
#: position.
Plausible = Callable[[Positions, int], NDArray[np.bool_]]


class Chain:
    """Finds the records of a chunk. Remembers how long records are, to choose the lanes of the next chunk."""

    def __init__(self, link: Link, alignment: int, turn: tuple[int, int] | None = None) -> None:
        """Records begin at multiples of ``alignment``.

        If ``turn`` is given, a record that begins with its first number has its second one at byte 8, unless
        another byte
        order holds from there on. Then the chain may be wrong behind that record.
        """
        self.link = link
        self.alignment = alignment
        self._turn = turn
        self._mean = 256.0

    def follow(self, octets: Octets, begin: int, end: int, plausible: Plausible) -> Positions:
        """Where the records are that begin in ``begin`` .. ``end`` and whose header lies before ``end``.

        ``plausible`` guesses where records begin; it need not be right. The last record may be incomplete,
        and any record may claim an absurd length: the chain then ends with it.
        """
        last = end - self.link.header + 1
        parts: list[Positions] = []
        retries = 0
        at = begin
        while at < last:
            starts = self._guess(at, last, plausible) if retries < MOST_RETRIES else np.array([at])
            if len(starts) < FEWEST_LANES:
                parts.append(self._one_by_one(octets, at, last))
                break
            positions, at = self._together(octets, starts, last)
            parts.append(positions)
            retries += 1
        records = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        if len(records) > 64:  # fewer, as at the end of a chunk, tell nothing
            self._mean = (end - begin) / len(records)
        return records

    def _guess(self, begin: int, last: int, plausible: Plausible) -> Positions:
        records = (last - begin) / self._mean
        stride = int((last - begin) / (LANES * math.sqrt(max(records, 1)))) // 4 * 4
        if stride < WINDOWS[-1][1]:
            return np.array([begin])
        lanes = np.arange(begin + stride, last - WINDOWS[-1][1], stride)
        starts = [np.array([begin])]
        for low, high in WINDOWS:
            good = plausible(lanes + low, high - low)
            first = good.argmax(axis=1)
            found = good[np.arange(len(lanes)), first]
            starts.append(lanes[found] + low + first[found] * self.alignment)
            lanes = lanes[~found]
            if not len(lanes):
                break
        return np.sort(np.concatenate(starts))

    def _together(self, octets: Octets, starts: Positions, last: int) -> tuple[Positions, int]:
        """The records of all lanes up to the first bad guess, and where the chain goes on."""
        limits = np.append(starts[1:], last)
        landed = np.empty(len(starts), np.int64)
        lane = np.arange(len(starts))
        lengths = (octets.u32_little if self.link.order == "<" else octets.u32)[self.link.field :]
        extra, least = self.link.extra, self.link.least
        at, limit = starts, limits
        passed = []
        while len(lane):
            steps = np.empty((STEPS + 1, len(lane)), np.int64)
            steps[0] = at
            for now, after in pairwise(steps):
                length = lengths[now]
                np.add(now, np.maximum(length, least) if least else length, out=after)
                after += extra
                np.minimum(after, last, out=after)
            over = steps >= limit
            passed.append(steps[:-1][~over[:-1]])
            ended = over[-1]
            landed[lane[ended]] = steps[over.argmax(axis=0), np.arange(len(lane))][ended]
            on = ~ended
            at, limit, lane = steps[-1, on], limit[on], lane[on]
        missed = np.flatnonzero(landed[:-1] != limits[:-1])
        records = np.sort(np.concatenate(passed))
        if len(missed):
            bad = int(missed[0])
            return records[: np.searchsorted(records, starts[bad + 1])], int(landed[bad])
        return records, int(landed[-1])

    def _one_by_one(self, octets: Octets, at: int, last: int) -> Positions:
        read = struct.Struct(self.link.order + "I").unpack_from
        field, extra, least = self.link.field, self.link.extra, self.link.least
        data = octets.raw.data
        records: list[int] = []
        first, usual = self._turn or (None, None)
        while at < last:
            records.append(at)
            if first is not None and read(data, at)[0] == first and read(data, at + 8)[0] != usual:
                break
            (length,) = read(data, at + field)
            if length < least:
                length = least
            at += length + extra
        return np.array(records, np.int64)
