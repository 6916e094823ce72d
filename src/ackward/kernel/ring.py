"""Reads a BPF ring buffer of fixed-size records as arrays.

libbpf's reader calls back once per record; at a million records a second that is a million Python calls. Records
of one size lie at one distance from each other, and the kernel maps the data twice in a row, so everything between
the consumer's and the producer's position is one strided array (kernel/bpf/ringbuf.c).
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ackward.kernel.libbpf import Map

# include/uapi/linux/bpf.h: the two top bits of a record's length word.
BUSY = np.uint32(1 << 31)
DISCARDED = np.uint32(1 << 30)
HEADER = 8


class Ring:
    """The consuming side of a ring buffer map whose records all have the layout ``record``."""

    def __init__(self, ring: Map, record: np.dtype[Any]) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        self._size = ring.max_entries
        self._consumer_page = mmap.mmap(
            ring.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0
        )
        self._producer_pages = mmap.mmap(
            ring.fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._consumer = np.frombuffer(self._consumer_page, np.uint64, 1)
        self._producer = np.frombuffer(self._producer_pages, np.uint64, 1)
        self._data = np.frombuffer(self._producer_pages, np.uint8, 2 * self._size, offset=page)
        stride = (HEADER + record.itemsize + 7) & ~7
        self._slot = np.dtype(
            {
                "names": ["length", "record"],
                "formats": ["<u4", record],
                "offsets": [0, HEADER],
                "itemsize": stride,
            }
        )

    def drain(self) -> NDArray[Any]:
        """All records that are complete by now, copied; never blocks."""
        begin, end = int(self._consumer[0]), int(self._producer[0])
        stride = self._slot.itemsize
        waiting = (end - begin) // stride
        offset = begin & (self._size - 1)
        slots = self._data[offset : offset + waiting * stride].view(self._slot)
        lengths = slots["length"].copy()
        if len(busy := np.flatnonzero(lengths & BUSY)):
            slots, lengths = slots[: busy[0]], lengths[: busy[0]]
        records: NDArray[Any] = slots["record"][(lengths & DISCARDED) == 0]
        # Only after the copy above may the kernel write there again.
        self._consumer[0] = begin + len(slots) * stride
        return records

    def close(self) -> None:
        """Unmap. Arrays that were drained are copies and stay valid."""
        del self._consumer, self._producer, self._data
        self._consumer_page.close()
        self._producer_pages.close()
