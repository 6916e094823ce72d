"""Reads a BPF ring buffer of small, rare records one by one. Standard library only.

:mod:`ackward.kernel.ring` reads a million records a second as arrays; where a record is a single event that somebody
waits for, making an array costs more than the record.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

from ackward.kernel.libbpf import Map

# include/uapi/linux/bpf.h: the two top bits of a record's length word.
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER = 8
_POSITION = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")


class RecordRing:
    """The consuming side of a ring buffer map. :meth:`fileno` becomes readable when a record was written."""

    def __init__(self, ring: Map) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        self._ring, self._size, self._page = ring, ring.max_entries, page
        self._consumer = mmap.mmap(ring.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        # The data is mapped twice in a row, so that a record that wraps around is in one piece.
        self._producer = mmap.mmap(
            ring.fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )

    def fileno(self) -> int:
        """The map's descriptor."""
        return self._ring.fd

    def drain(self) -> Iterator[bytes]:
        """The records that are complete by now; each is free for the kernel again when the next is asked for."""
        (at,) = _POSITION.unpack_from(self._consumer, 0)
        while at != _POSITION.unpack_from(self._producer, 0)[0]:
            begin = self._page + (at & (self._size - 1))
            (length,) = _LENGTH.unpack_from(self._producer, begin)
            if length & _BUSY:
                return
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                yield self._producer[begin + _HEADER : begin + _HEADER + size]
            at += (size + _HEADER + 7) & ~7
            _POSITION.pack_into(self._consumer, 0, at)

    def close(self) -> None:
        """Unmap."""
        self._consumer.close()
        self._producer.close()
