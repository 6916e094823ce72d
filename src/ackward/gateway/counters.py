"""Numbers that workers count and the supervisor reads, in memory that all of them share.

Each worker writes its own row, so that nothing is locked; the supervisor adds the rows up. A row outlives its worker:
what a killed worker counted stays counted.
"""

from __future__ import annotations

import mmap
from enum import IntEnum, auto

from ackward.gateway.settings import End


class Count(IntEnum):
    """What is counted. Those of :data:`GAUGES` go up and down."""

    ACCEPTED = 0
    CONNECTIONS = auto()  # open now
    TO_SERVER = auto()  # payload bytes of ended connections
    TO_CLIENT = auto()
    EARLY_BEGUN = auto()  # connections begun by a SYN
    EARLY_CLAIMED = auto()  # ... whose client was accepted
    EARLY_REFUSED = auto()  # SYNs beyond the limits; their clients are served without being early
    EARLY_PENDING = auto()  # now
    HELD_SYNS = auto()  # faithful: held now
    LEGS_BEGUN = auto()
    LEGS_READY = auto()  # became ready since the start
    LEGS_FAILED = auto()
    LEGS_IDLE = auto()  # in the pool now
    LEGS_USED = auto()
    POOL_EMPTY = auto()  # a leg was wanted and had to be connected first
    LEGS_ACCEPTED = auto()  # exit
    LEGS_REJECTED = auto()  # exit: a peer that did not prove itself
    HANDSHAKES_DROPPED = auto()  # exit: beyond the limit of unproved legs
    PIPES = auto()  # open now
    PIPES_NOT_EMPTY = auto()  # came back with bytes, and were closed
    BUSY = auto()  # clients reset for want of room or descriptors
    STUCK = auto()  # connections of which an end did not acknowledge long segments, sent again and again
    WENT_ON_IN_FRAGMENTS = auto()  # ... which went on when routers were allowed to fragment
    WORKERS_LOST = auto()  # counted by the supervisor, which replaces them
    FIRST_END = auto()  # from here on: ends of connections, in the order of End


GAUGES = (
    Count.CONNECTIONS,
    Count.EARLY_PENDING,
    Count.HELD_SYNS,
    Count.LEGS_IDLE,
    Count.PIPES,
)
_ENDS = {end: Count.FIRST_END + number for number, end in enumerate(End)}
_ROW = Count.FIRST_END + len(End)


class Row:
    """What one worker counts."""

    __slots__ = ("_cells",)

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    def add(self, count: Count, amount: int = 1) -> None:
        """Count so much more, or less."""
        self._cells[count] += amount

    def set(self, gauge: Count, value: int) -> None:
        """Set a gauge."""
        self._cells[gauge] = value

    def end(self, end: End) -> None:
        """Count the end of a connection."""
        self._cells[_ENDS[end]] += 1


class Counters:
    """All rows. Made before the workers are forked."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap.mmap(-1, workers * _ROW * 8)
        self._cells = memoryview(self._memory).cast("q")
        self._workers = workers

    def row(self, worker: int) -> Row:
        """The row of one worker."""
        return Row(self._cells[worker * _ROW : (worker + 1) * _ROW])

    def clear_gauges(self, worker: int) -> None:
        """A worker has ended: nothing of it is open any more."""
        for gauge in GAUGES:
            self._cells[worker * _ROW + gauge] = 0

    def total(self, count: Count) -> int:
        """The sum over all workers."""
        return sum(self._cells[worker * _ROW + count] for worker in range(self._workers))

    def ended(self, end: End) -> int:
        """How many connections ended so."""
        return sum(self._cells[worker * _ROW + _ENDS[end]] for worker in range(self._workers))

    def as_dict(self) -> dict[str, int]:
        """All sums by name, lower case; ends as ``ended_<how>``."""
        totals = {count.name.lower(): self.total(count) for count in Count if count != Count.FIRST_END}
        return totals | {f"ended_{end.replace('-', '_')}": self.ended(end) for end in End}
