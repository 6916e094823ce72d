"""How far a second clock is ahead of a first, from segments that two captures both show.

A segment that arrived at the second capture shows the clocks' difference plus the path that it took; one that left
from there shows the difference less its path. So the difference, drawn over time, runs in a strip: below all that
arrived, above all that left, wherever the clocks run evenly. The widest such strip, of any slope, rests on the segments
that waited least (the convex hulls of Moon, Skelly & Towsley 1999, for both directions at once). Its slope is the
drift, and its middle the offset, as far as the path is equally long both ways (RFC 5905 section 8).

Laws
 - No segment arrives before it left, to within RESOLUTION.
 - So the error is at most half of what some segment there and some segment back took together.
 - A drift is told only if no constant offset obeys the first law, or if queues cannot have made it: both directions
   were seen in MOST_WINDOWS of WINDOWS equal parts of the time, and the slope makes the strip wider by more than twice
   what queues leave of the quickest segments of the median part.
 - A clock steps where no strip, with the steepest slope that a clock can have, obeys the first law any longer. A
   smaller step cannot be told from queues; the second law bounds what it does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ackward.diagnosis.columns import Entries
from ackward.diagnosis.segmented import Bools, Ints

Floats = NDArray[np.float64]

#: Of the times in most captures, in nanoseconds.
RESOLUTION = 1_000
#: NTP disciplines no clock that is further off (RFC 5905 appendix A.1.1, MAXFREQ: 500 ppm).
STEEPEST = 500e-6
#: Equal parts of the time, and in how many of them both directions must have been seen.
WINDOWS, MOST_WINDOWS = 8, 6
#: A clock that steps more often is none.
MOST_STEPS = 1_000
#: How often sightings of one direction alone, between steps, are taken for mistaken and left out.
MOST_MISTAKES = 8
#: Rounds in which a hull is thinned for all points at once; what is left is walked through.
THINNING = 32


@dataclass(frozen=True)
class Sightings(Entries):
    """Segments that both captures show, in the order of the second one.

    ``ahead`` is the second capture's time less the first's, and ``arrived`` says that the segment came to the second.
    """

    packet: Ints
    time: Ints
    ahead: Ints
    arrived: Bools


@dataclass(frozen=True)
class Clock:
    """A second clock by the first, in pieces without a step; one entry each.

    From ``packet`` on it is ``ahead`` nanoseconds ahead when it shows ``time``, and gains ``drift`` nanoseconds a
    nanosecond.
    """

    packet: Ints
    time: Ints
    ahead: Ints
    drift: Floats

    def at(self, packet: Ints, time: Ints) -> Ints:
        """How many nanoseconds ahead it is at these packets of the second capture, which have these times."""
        piece = np.maximum(np.searchsorted(self.packet, packet, side="right") - 1, 0)
        gained = self.drift[piece] * (time - self.time[piece])
        ahead: Ints = self.ahead[piece] + np.rint(gained).astype(np.int64)
        return ahead

    @property
    def steps(self) -> Ints:
        """By how much it goes ahead at each step."""
        steps: Ints = self.ahead[1:] - Clock.at(
            Clock(self.packet[:-1], self.time[:-1], self.ahead[:-1], self.drift[:-1]),
            self.packet[1:] - 1,
            self.time[1:],
        )
        return steps


@dataclass(frozen=True)
class _Strip:
    """Between what left and what arrived: ``middle`` at time 0, and as wide everywhere."""

    drift: float
    middle: float
    width: float


def compare(seen: Sightings) -> Clock | None:
    """The second clock by the first; None if there are not both directions, or no clock could be like that."""
    if not len(seen.time):
        return None
    time, ahead = int(seen.time[0]), int(seen.ahead[0])  # small numbers are exact as floats
    for _ in range(MOST_MISTAKES):
        begins = _pieces(seen, time, ahead)
        if begins is None:
            return None
        # A piece with one direction only is no clock's but some segment's that was taken for another.
        number = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(seen.time))))
        arrived = np.bincount(number, weights=seen.arrived)
        whole = (arrived > 0) & (arrived < np.bincount(number))
        if whole.all():
            return _clock(seen, begins, time, ahead)
        seen = seen.chosen(whole[number])
        if not len(seen.time):
            return None
    return None


def _clock(seen: Sightings, begins: Ints, time: int, ahead: int) -> Clock:
    found = [_fitted(*part) for part in _parts(seen, begins, time, ahead)]
    start = seen.time[begins]
    drift = np.array([strip.drift for strip in found])
    middle = np.array([strip.middle for strip in found])
    return Clock(
        seen.packet[begins], start, ahead + np.rint(middle + drift * (start - time)).astype(np.int64), drift
    )


_Part = tuple[Floats, Floats, Bools]


def _parts(seen: Sightings, begins: Ints, time: int, ahead: int) -> list[_Part]:
    """The sightings from each of ``begins`` to the next, relative to ``time`` and ``ahead``."""
    ends = np.append(begins[1:], len(seen.time))
    return [
        (
            (seen.time[begin:end] - time).astype(np.float64),
            (seen.ahead[begin:end] - ahead).astype(np.float64),
            seen.arrived[begin:end],
        )
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    ]


def _pieces(seen: Sightings, time: int, ahead: int) -> Ints | None:
    """Where each piece without a step begins: every one as long as it can be."""
    [(times, aheads, arrived)] = _parts(seen, np.zeros(1, np.int64), time, ahead)
    begins = [0]
    while True:
        begin = begins[-1]
        size = _steady(times[begin:], aheads[begin:], arrived[begin:])
        if begin + size == len(times):
            return np.array(begins, np.int64)
        if len(begins) > MOST_STEPS:
            return None
        # What contradicts all before it shows the step late: that may have been at any segment of the other direction
        # since the last one of its own. Those which contradict it were before the step, the ones after them are not.
        late = begin + size
        sign = np.where(arrived, 1, -1)
        own = np.flatnonzero(arrived[begin:late] == arrived[late])
        first = begin + (int(own[-1]) + 1 if len(own) else 0)
        against = np.flatnonzero(sign[first:late] * (aheads[first:late] - aheads[late]) < -RESOLUTION)
        step = first + (int(against[-1]) + 1 if len(against) else 0)
        begins.append(step if step > begin else late)


def _steady(times: Floats, aheads: Floats, arrived: Bools) -> int:
    """How many of the first sightings one strip can hold."""

    def holds(size: int) -> bool:
        strip = _widest(times[:size], aheads[:size], arrived[:size])
        return strip is None or strip.width >= -RESOLUTION

    good, bad = 1, 2
    while bad < len(times) and holds(bad):
        good, bad = bad, 2 * bad
    if bad >= len(times):
        if holds(len(times)):
            return len(times)
        bad = len(times)
    while bad - good > 1:
        size = (good + bad) // 2
        good, bad = (size, bad) if holds(size) else (good, size)
    return good


def _widest(times: Floats, aheads: Floats, arrived: Bools) -> _Strip | None:
    """The strip that is widest in the middle of the time, whatever its slope; None without both directions."""
    if arrived.all() or not arrived.any():
        return None
    centre = (times.min() + times.max()) / 2
    upper = _hull(times[arrived] - centre, aheads[arrived])
    lower = _hull(times[~arrived] - centre, -aheads[~arrived])
    # Its width is a concave function of the slope, with corners at the slopes of the hulls' edges.
    slopes = np.unique(
        np.clip(np.concatenate((_edges(*upper), -_edges(*lower), (-1, 0, 1))), -STEEPEST, STEEPEST)
    )
    tops, bottoms = _least(upper, slopes), -_least(lower, -slopes)
    widths = tops - bottoms
    best = np.flatnonzero(widths >= widths.max() - 1)  # a nanosecond is nothing
    slope = float(slopes[best[0]] + slopes[best[-1]]) / 2
    [top], [bottom] = _least(upper, np.array([slope])), -_least(lower, np.array([-slope]))
    return _Strip(slope, float(top + bottom) / 2 - slope * float(centre), float(top - bottom))


def _fitted(times: Floats, aheads: Floats, arrived: Bools) -> _Strip:
    """The widest strip if its slope is a drift, by the third law, else the one without slope."""
    widest = _widest(times, aheads, arrived)
    assert widest is not None
    top, bottom = float(aheads[arrived].min()), float(aheads[~arrived].max())
    level = _Strip(0.0, (top + bottom) / 2, top - bottom)
    if level.width < -RESOLUTION:
        return widest
    left = _left_by_queues(times, aheads, arrived, widest)
    return widest if left is not None and widest.width - level.width > 2 * left else level


def _left_by_queues(times: Floats, aheads: Floats, arrived: Bools, strip: _Strip) -> float | None:
    """How much longer than the strip is wide the quickest segments both ways took together, in the median window."""
    residual = aheads - strip.middle - strip.drift * times
    span = max(float(np.ptp(times)), 1.0)
    window = np.minimum(((times - times.min()) / span * WINDOWS).astype(np.int64), WINDOWS - 1)
    there, back = np.full(WINDOWS, np.inf), np.full(WINDOWS, np.inf)
    np.minimum.at(there, window[arrived], residual[arrived])
    np.minimum.at(back, window[~arrived], -residual[~arrived])
    took = there + back
    both = np.isfinite(took)
    if np.count_nonzero(both) < MOST_WINDOWS:
        return None
    return float(np.median(took[both])) - strip.width


_Hull = tuple[Floats, Floats]


def _hull(times: Floats, values: Floats) -> _Hull:
    """The lower convex hull of these points, from left to right."""
    order = np.lexsort((values, times))
    times, values = times[order], values[order]
    first = np.append(True, times[1:] > times[:-1])
    times, values = times[first], values[first]
    for _ in range(THINNING):
        # A point above the line between its neighbours is on no hull.
        keep = np.ones(len(times), bool)
        keep[1:-1] = _turns_up(times, values)
        if keep.all():
            return times, values
        times, values = times[keep], values[keep]
    chain: list[tuple[float, float]] = []
    for x, y in zip(times.tolist(), values.tolist(), strict=True):
        while len(chain) > 1:
            (x0, y0), (x1, y1) = chain[-2:]
            if (y1 - y0) * (x - x1) < (y - y1) * (x1 - x0):
                break
            chain.pop()
        chain.append((x, y))
    hull = np.array(chain)
    return hull[:, 0], hull[:, 1]


def _turns_up(times: Floats, values: Floats) -> Bools:
    run, rise = np.diff(times), np.diff(values)
    turns: Bools = rise[:-1] * run[1:] < rise[1:] * run[:-1]
    return turns


def _edges(times: Floats, values: Floats) -> Floats:
    slopes: Floats = np.diff(values) / np.diff(times)
    return slopes


def _least(hull: _Hull, slopes: Floats) -> Floats:
    """For each slope, how high the highest line of this slope below the hull is at time 0."""
    times, values = hull
    corner = np.searchsorted(_edges(times, values), slopes)
    least: Floats = values[corner] - slopes * times[corner]
    return least
