"""Bursts: data that left, or arrived, with no gap worth mentioning in between."""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.segmented import Bools, Ints


def bytes_before(timeline: Timeline, row: Ints, begins: Bools) -> Ints:
    """For each of ``row``, data of one direction in order, the bytes of the burst before it; 0 for the first of all.

    ``begins`` says which of them begin a burst.
    """
    first = np.maximum.accumulate(np.where(begins, np.arange(len(row)), 0))
    size = np.zeros(len(row), np.int64)
    size[1:] = timeline.end64[row[:-1]] - timeline.seq64[row[first[:-1]]]
    return size
