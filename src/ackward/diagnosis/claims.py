"""What a cause says: "this interval of this exchange was mine, and here is how I know"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ackward.diagnosis.segmented import Bools, Ints
from ackward.model.causes import Cause
from ackward.model.segments import Vantage

NO_ROW = -1
NO_END = -1


@dataclass(frozen=True)
class Claims:
    """Claims of one cause, one entry each.

    ``evidence`` is the row of the timeline that shows it best (or NO_ROW). ``holding`` and ``delaying`` name the ends
    (a :class:`Vantage`, or NO_END). Claims may overlap, also one another: the partition settles that.
    """

    cause: Cause
    exchange: Ints
    start: Ints
    end: Ints
    observed: Bools
    evidence: Ints
    holding: Ints
    delaying: Ints

    @classmethod
    def of(
        cls,
        cause: Cause,
        exchange: Ints,
        start: Ints,
        end: Ints,
        *,
        observed: Bools | bool,
        evidence: Ints | None = None,
        holding: Ints | int = NO_END,
        delaying: Ints | int = NO_END,
    ) -> Self:
        """Claims from arrays; scalars apply to all. Entries outside of exchanges or without length are dropped."""
        size = len(exchange)

        def column(value: Ints | int | None, default: int) -> Ints:
            return np.broadcast_to(np.asarray(default if value is None else value), (size,))

        keep = (exchange >= 0) & (end > start)
        return cls(
            cause,
            exchange[keep],
            start[keep],
            end[keep],
            np.broadcast_to(np.asarray(observed, bool), (size,))[keep],
            column(evidence, NO_ROW)[keep],
            column(holding, NO_END)[keep],
            column(delaying, NO_END)[keep],
        )

    def __len__(self) -> int:
        return len(self.exchange)


def other(vantage: Ints | int) -> Ints | int:
    """The opposite end."""
    return Vantage.SERVER + Vantage.CLIENT - vantage


def gather(claims: Sequence[Claims], name: str) -> Ints:
    """One column of all claims, in their order."""
    parts = [getattr(claim, name) for claim in claims]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
