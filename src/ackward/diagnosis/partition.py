"""Claims to a partition: every nanosecond of an exchange goes to exactly one cause.

Laws
 - The parts of an exchange tile it: they do not overlap, leave no gap, and add up to its elapsed time.
 - Where claims compete, the cause that stands higher in PRIORITY wins; of one cause, ``observed`` beats ``inferred``.
 - What nobody claims is ``unknown``.

They hold by construction: an exchange is cut at the ends of all claims, and each piece is painted once per layer, the
highest layer last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.claims import NO_END, NO_ROW, Claims, gather
from ackward.diagnosis.columns import Entries
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.segmented import Bools, Ints, in_order, starts
from ackward.model.causes import STALLS, Cause

#: Highest first. A full accept queue looks like loss and is none; loss comes next, because whatever else waits
#: meanwhile waits for it. Then waits on TCP's
#: rules, narrow before wide; then the two programs; then distance, which only gets what nobody else could explain.
PRIORITY: tuple[Cause, ...] = (
    Cause.ACCEPT_QUEUE,
    Cause.RETRANSMISSION_TIMEOUT,
    Cause.TAIL_LOSS_PROBE,
    Cause.FAST_RETRANSMIT,
    Cause.RECEIVE_WINDOW,
    Cause.STANDOFF,
    Cause.NAGLE,
    Cause.DELAYED_ACK,
    Cause.ACK_HOLDING,
    Cause.IDLE_RESTART,
    Cause.SLOW_START,
    Cause.CONGESTION_WINDOW,
    Cause.PACING,
    Cause.HOST_QUEUE,
    Cause.CLIENT,
    Cause.SERVER,
    Cause.HANDSHAKE,
    Cause.NETWORK,
    Cause.UNKNOWN,
)
_RANK = {cause: len(PRIORITY) - place for place, cause in enumerate(PRIORITY)}


@dataclass(frozen=True)
class Parts(Entries):
    """The partition, in order of exchange and time. ``cause`` indexes :data:`CAUSES`; the rest is as in Claims."""

    exchange: Ints
    start: Ints
    end: Ints
    cause: Ints
    observed: Bools
    evidence: Ints
    holding: Ints
    delaying: Ints

    @property
    def ns(self) -> Ints:
        """The length of each part."""
        return self.end - self.start


CAUSES: tuple[Cause, ...] = tuple(Cause)
_UNKNOWN = CAUSES.index(Cause.UNKNOWN)
_STALLS = [CAUSES.index(cause) for cause in STALLS]


def settle(timeline: Timeline, claims: Sequence[Claims]) -> Parts:
    """Paint all claims onto the exchanges and give back the picture."""
    claims = sorted((claim for claim in claims if len(claim)), key=lambda claim: _RANK[claim.cause])
    exchange = gather(claims, "exchange")
    start = np.clip(gather(claims, "start"), timeline.start[exchange], timeline.end[exchange])
    end = np.clip(gather(claims, "end"), start, timeline.end[exchange])
    cause = np.repeat(
        [CAUSES.index(claim.cause) for claim in claims], [len(claim) for claim in claims]
    ).astype(np.int64)
    rank = np.repeat([_RANK[claim.cause] for claim in claims], [len(claim) for claim in claims]).astype(
        np.int64
    )
    observed = gather(claims, "observed").astype(bool)

    # One point per exchange boundary and claim boundary; pieces run from a point to the next of the same exchange.
    whole = np.arange(timeline.count)
    point_exchange = np.concatenate((whole, whole, exchange, exchange))
    point_time = np.concatenate((timeline.start, timeline.end, start, end))
    key = in_order(point_exchange, point_time)
    # A merge sort is fastest here: the points come in a few runs that are in order already.
    order = np.argsort(key, kind="stable")
    fresh = starts(key[order])
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(fresh) - 1
    points = order[fresh]
    piece_exchange, piece_time = point_exchange[points], point_time[points]

    winner = np.full(len(piece_time), -1, np.int64)
    layer = rank * 2 + observed
    first, last = place[2 * timeline.count :][: len(exchange)], place[2 * timeline.count + len(exchange) :]
    for value in np.unique(layer):
        _paint(winner, np.flatnonzero((layer == value) & (end > start)), first, last)

    real = np.flatnonzero(~starts(piece_exchange)[1:])  # the last point of an exchange begins no piece
    won = winner[real]  # -1, the last entry below, where nobody did
    cause, observed = np.append(cause, _UNKNOWN), np.append(observed, False)
    evidence = np.append(gather(claims, "evidence"), NO_ROW)
    holding, delaying = (np.append(gather(claims, name), NO_END) for name in ("holding", "delaying"))
    begins = starts(piece_exchange[real]) | starts(_kin(cause, observed, holding, delaying)[won])
    ends = real[np.append(begins[1:], True)[: len(begins)]] + 1
    real, won = real[begins], won[begins]
    return Parts(
        piece_exchange[real],
        piece_time[real],
        piece_time[ends],
        cause[won],
        observed[won],
        evidence[won],
        holding[won],
        delaying[won],
    )


def _paint(winner: Ints, chosen: Ints, first: Ints, last: Ints) -> None:
    """Paint one layer: each piece that a chosen claim covers goes to the covering claim that starts last."""
    size = len(winner)
    depth = np.bincount(first[chosen], minlength=size) - np.bincount(last[chosen], minlength=size)
    covered = np.flatnonzero(np.cumsum(depth) > 0)
    mark = np.full(size, -1, np.int64)
    mark[first[chosen]] = chosen
    # A claim that ended leaves its mark standing; where an earlier one still covers, it keeps the later one's name.
    marked = mark >= 0
    latest = np.cumsum(marked, dtype=np.int32)[covered] - 1
    winner[covered] = mark[marked][latest]


def _kin(cause: Ints, observed: Bools, holding: Ints, delaying: Ints) -> Ints:
    """Claims with one number become one part where their pieces meet: those of a stall only with themselves."""
    alike = ((cause * 2 + observed) * 3 + holding + 1) * 3 + delaying + 1
    return np.where(np.isin(cause, _STALLS), np.arange(len(cause)), -1 - alike)
