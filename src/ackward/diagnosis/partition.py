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
from dataclasses import dataclass, replace

import numpy as np

from ackward.diagnosis.claims import NO_END, NO_ROW, Claims, gather
from ackward.diagnosis.columns import Entries
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.segmented import Bools, Ints, in_order, running_max, starts
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
    piece_exchange, piece_time = point_exchange[order][fresh], point_time[order][fresh]

    winner = np.full(len(piece_time), -1, np.int64)
    layer = rank * 2 + observed
    first, last = place[2 * timeline.count :][: len(exchange)], place[2 * timeline.count + len(exchange) :]
    for value in np.unique(layer):
        _paint(winner, np.flatnonzero((layer == value) & (end > start)), first, last)

    real = np.ones(len(piece_time), bool)  # the last point of an exchange begins no piece
    real[:-1] = piece_exchange[1:] == piece_exchange[:-1]
    if len(real):
        real[-1] = False
    until = np.empty_like(piece_time)
    until[:-1] = piece_time[1:]
    won = winner[real]
    claimed, safe = won >= 0, np.maximum(won, 0)

    def pick(values: Ints, default: int) -> Ints:
        return np.where(claimed, values[safe] if len(values) else default, default)

    parts = Parts(
        piece_exchange[real],
        piece_time[real],
        until[real],
        pick(cause, _UNKNOWN),
        pick(observed.astype(np.int64), 0).astype(bool),
        pick(gather(claims, "evidence"), NO_ROW),
        pick(gather(claims, "holding"), NO_END),
        pick(gather(claims, "delaying"), NO_END),
    )
    return _merged(parts, won)


def _paint(winner: Ints, chosen: Ints, first: Ints, last: Ints) -> None:
    """Paint one layer: each piece that a chosen claim covers goes to the covering claim that starts last."""
    depth = np.zeros(len(winner) + 1, np.int64)
    np.add.at(depth, first[chosen], 1)
    np.add.at(depth, last[chosen], -1)
    covered = np.cumsum(depth[:-1]) > 0
    mark = np.full(len(winner), -1, np.int64)
    mark[first[chosen]] = chosen
    # A claim that ended leaves its mark standing; where an earlier one still covers, it keeps the later one's name.
    group = np.zeros(len(winner), np.int64)
    place = running_max(group, np.arange(len(winner)), where=mark >= 0)
    painted = covered & (place >= 0)
    winner[painted] = mark[place[painted]]


def _merged(parts: Parts, won: Ints) -> Parts:
    """Neighbouring pieces of one claim become one part again; where nothing stalled, those of one cause do."""
    if not len(won):
        return parts
    alike = ((parts.cause * 2 + parts.observed) * 3 + parts.holding + 1) * 3 + parts.delaying + 1
    kept_apart = np.isin(parts.cause, _STALLS)
    key = np.where(kept_apart, won, -1 - alike)  # claims count from 0
    begins = np.ones(len(won), bool)
    begins[1:] = (np.diff(parts.exchange) != 0) | (np.diff(key) != 0)
    ends = np.ones(len(won), bool)
    ends[:-1] = begins[1:]
    return replace(parts.chosen(begins), end=parts.end[ends])
