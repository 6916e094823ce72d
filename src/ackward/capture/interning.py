"""Numbers for keys: an exact dictionary of 128-bit keys, looked up for thousands of keys at a time.

Open addressing with linear probing. Keys are compared in full, so two keys never share a number. The hash has secret
multipliers, so that no capture can be made whose keys all fall onto one slot; the numbers do not depend on it.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Numbers = NDArray[np.int64]
SMALLEST = 1 << 12
EMPTY = -1


class Interning:
    """Gives each key, a pair of 64-bit numbers, the count of keys seen before it first appeared."""

    def __init__(self) -> None:
        self.count = 0
        self._high, self._low = np.zeros(SMALLEST, np.uint64), np.zeros(SMALLEST, np.uint64)
        self._slots = np.full(SMALLEST * 4, EMPTY, np.int32)
        self._factors = [np.uint64(int.from_bytes(os.urandom(8)) | 1) for _ in range(2)]

    @property
    def high(self) -> Keys:
        """The first halves of all keys, by number."""
        return self._high[: self.count]

    @property
    def low(self) -> Keys:
        """The second halves of all keys, by number."""
        return self._low[: self.count]

    def number(self, high: Keys, low: Keys) -> Numbers:
        """The numbers of these keys; new keys are numbered in the order of their first appearance."""
        slots = self._home(high, low)
        numbers = self._slots[slots]
        known = (self._high[numbers] == high) & (self._low[numbers] == low) & (numbers >= 0)
        if known.all():
            return numbers.astype(np.int64)
        numbers[~known] = self._add(high[~known], low[~known])
        return numbers.astype(np.int64)

    def _home(self, high: Keys, low: Keys) -> NDArray[np.int64]:
        shift = np.uint64(64 - (len(self._slots) - 1).bit_length())
        return ((high * self._factors[0] + low * self._factors[1]) >> shift).view(np.int64)

    def _add(self, high: Keys, low: Keys) -> NDArray[np.int32]:
        """The numbers of keys of which not all are known. May be given a key many times."""
        self._make_room(len(high))
        numbers = np.empty(len(high), np.int32)
        fresh_rows, fresh_slots = [], []
        pending = np.arange(len(high))
        slots = self._home(high, low)
        provisional = self.count
        while len(pending):
            rows = pending[self._slots[slots] == EMPTY]
            places = slots[self._slots[slots] == EMPTY]
            if len(rows):
                # All rows that want a slot write their row to it, the first row last: it gets the slot.
                self._slots[places[::-1]] = rows[::-1]
                won = self._slots[places] == rows
                rows, places = rows[won], places[won]
                claimed = np.arange(provisional, provisional + len(rows))
                provisional += len(rows)
                self._slots[places] = claimed
                self._high[claimed], self._low[claimed] = high[rows], low[rows]
                fresh_rows.append(rows)
                fresh_slots.append(places)
            found = self._slots[slots]
            same = (self._high[found] == high[pending]) & (self._low[found] == low[pending])
            numbers[pending[same]] = found[same]
            pending = pending[~same]
            slots = (slots[~same] + 1) & (len(self._slots) - 1)
        if len(fresh_rows) > 1:
            numbers = self._renumber(np.concatenate(fresh_rows), np.concatenate(fresh_slots), numbers)
        self.count = provisional
        return numbers

    def _renumber(
        self, rows: NDArray[np.int64], slots: NDArray[np.int64], numbers: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """Puts the keys that were just added into the order of the rows in which they first appeared."""
        base = self.count
        order = np.argsort(rows)
        rank = np.empty(len(rows), np.int32)
        rank[order] = np.arange(len(rows), dtype=np.int32)
        added = slice(base, base + len(rows))
        self._high[added], self._low[added] = self._high[added][order], self._low[added][order]
        self._slots[slots] = base + rank
        fresh = numbers >= base
        numbers[fresh] = base + rank[numbers[fresh] - base]
        return numbers

    def _make_room(self, more: int) -> None:
        """Room for as many keys, with at least three of four slots left empty."""
        wanted = self.count + more
        if wanted > len(self._high):
            size = 1 << (wanted - 1).bit_length()
            self._high = np.concatenate([self.high, np.zeros(size - self.count, np.uint64)])
            self._low = np.concatenate([self.low, np.zeros(size - self.count, np.uint64)])
        if wanted * 4 <= len(self._slots):
            return
        self._slots = np.full(1 << (wanted * 4 - 1).bit_length(), EMPTY, np.int32)
        pending = np.arange(self.count, dtype=np.int32)
        slots = self._home(self.high, self.low)
        while len(pending):
            free = self._slots[slots] == EMPTY
            self._slots[slots[free]] = pending[free]
            left = self._slots[slots] != pending
            pending, slots = pending[left], (slots[left] + 1) & (len(self._slots) - 1)
