"""Which of several captures show the same traffic, and from how many points.

Laws
 - Files that share flows, but no segments, are pieces of one capture, as those of a ring are: they count as one.
 - Two files show the same traffic if both hold segments of a flow, each way, exactly once. What one direction alone
   shows, as a tap of one, counts where half of the flows that both hold show it. Files that follow one another also
   share what was sent again across their border: so they count only where half of those flows show the same each way,
   and only for files that show the same as none at the same time: then clocks are hours apart.
 - The points of a flow are the fewest sets of files of which no two show the same. Two points can be joined, unless
   they are one: copies, whose times do not differ. Of more, and of copies, one alone may count.
 - Files that follow one another, by name and in time, and show the same as a third one are of one point.
 - Where files of a flow show nothing that others do, those that follow one another are of one point; else those that
   are named next to one another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ackward.diagnosis.segmented import Bools, Ints, starts
from ackward.model.segments import Flag, Segments

#: In nanoseconds, of the times in most captures: a copy may have dropped what is below.
TICK = 1_000

Point = tuple[int, ...]


@dataclass(frozen=True)
class SameTraffic:
    """Flows of which several files show the same segments, and the files of each point, the first named one first.

    ``joinable``: there are two points, each with times of its own.
    """

    points: tuple[Point, ...]
    flows: Ints
    joinable: bool


@dataclass(frozen=True)
class _Alike:
    """Of each file those that show the same, and those of them that are copies; and its first and its last time."""

    partners: Mapping[int, set[int]]
    copies: Mapping[int, set[int]]
    first: list[int]
    last: list[int]

    def overlap(self, one: int, other: int) -> int:
        """For how long both files go on, in nanoseconds."""
        return max(min(self.last[one], self.last[other]) - max(self.first[one], self.first[other]), 0)


def same_traffic(segments: Segments, file: Ints, files: int) -> list[SameTraffic]:
    """Every traffic that stands in several files; ``file`` is that of each row, a number below ``files``."""
    number = segments["flow"].astype(np.int64)
    held = np.unique(number * files + file)  # each flow with each of its files
    flow = held // files
    several = np.bincount(flow, minlength=1) > 1
    if not several.any():
        return []
    alike = _alike(segments, file, files, several[number], held)
    if not alike.partners:
        return []
    return _grouped(alike, _sets(held[several[flow]], files))


def _alike(segments: Segments, file: Ints, files: int, asked: Bools, held: Ints) -> _Alike:
    opening = asked & ((segments["bytes"] > 0) | (segments["tcp_flags"] & Flag.SYN > 0))
    rows = np.flatnonzero(opening)
    some = {name: segments[name][rows] for name in ("flow", "seq", "bytes", "to_server", "time_ns")}
    where = some["flow"].astype(np.uint64) << np.uint64(32) | some["seq"]
    size = (some["bytes"].astype(np.int64) << 1 | some["to_server"]) * files + file[rows]
    order = np.lexsort((size, where))
    where, size, of = where[order], size[order], file[rows][order]
    time, way = some["time_ns"][order], some["flow"][order].astype(np.int64) * 2 + some["to_server"][order]
    # Once in its file: neither neighbour is the same segment in the same file.
    again = (where[1:] == where[:-1]) & (size[1:] == size[:-1])
    once = np.flatnonzero(~(np.append(again, False) | np.append(False, again)))
    where, size, of, time, way = where[once], size[once] // files, of[once], time[once], way[once]
    ways: list[Ints] = []
    moved: list[Ints] = []
    one = np.arange(max(len(where) - 1, 0))
    for apart in range(1, files):
        one = one[one + apart < len(where)]
        other = one + apart
        shared = (where[one] == where[other]) & (size[one] == size[other])
        one, other = one[shared], other[shared]
        if not len(one):
            break
        pair = of[one] * files + of[other]
        ways.append(way[one] * files**2 + pair)
        moved.append(pair[time[one] // TICK != time[other] // TICK])
    first, last = np.full(files, np.iinfo(np.int64).max), np.full(files, np.iinfo(np.int64).min)
    np.minimum.at(first, file, segments["time_ns"])
    np.maximum.at(last, file, segments["time_ns"])
    if not ways:
        return _Alike({}, {}, first.tolist(), last.tolist())
    pairs = np.unique(np.concatenate(ways)), np.unique(np.concatenate(moved))
    return _judged(*pairs, first.tolist(), last.tolist(), held)


def _judged(ways: Ints, moved: Ints, first: list[int], last: list[int], held: Ints) -> _Alike:
    """By the second law.

    ``ways`` tells the direction of a flow and the pair of files that share segments of it, ``moved`` the pairs of which
    any segment has another time.
    """
    files = len(first)
    of, pair = ways // files**2, ways % files**2
    flow = np.unique(of // 2 * files**2 + pair)
    either = np.bincount(flow % files**2, minlength=1) if len(flow) else np.zeros(1, np.int64)
    both = np.bincount(pair) - either  # directions less flows: the flows with two
    alike: set[tuple[int, int]] = set()
    apart: set[tuple[int, int]] = set()
    for number in np.flatnonzero(either).tolist():
        one, other = divmod(number, files)
        shared = len(np.intersect1d(held[held % files == one] // files, held[held % files == other] // files))
        if first[one] < last[other] and first[other] < last[one]:
            if both[number] or 2 * either[number] >= shared:
                alike.add((one, other))
        elif 2 * both[number] >= shared:
            apart.add((one, other))
    partnered = {file for pair in alike for file in pair}
    alike |= {pair for pair in apart if partnered.isdisjoint(pair)}
    copies = {(one, other) for one, other in alike if one * files + other not in moved}
    return _Alike(_both_ways(alike), _both_ways(copies), first, last)


def _both_ways(pairs: Iterable[tuple[int, int]]) -> defaultdict[int, set[int]]:
    partners: defaultdict[int, set[int]] = defaultdict(set)
    for one, other in pairs:
        partners[one].add(other)
        partners[other].add(one)
    return partners


def _sets(held: Ints, files: int) -> list[tuple[Point, Ints]]:
    """The flows by the set of files that hold them."""
    flow, file = held // files, held % files
    begins = np.flatnonzero(starts(flow))
    # Equal sets have equal sums of random numbers, and others, as far as 64 bits go, have not.
    weight = np.random.default_rng(1).integers(0, 1 << 64, files, np.uint64)
    _, first, which = np.unique(np.add.reduceat(weight[file], begins), return_index=True, return_inverse=True)
    ends = np.append(begins[1:], len(held))
    flows = flow[begins]
    order = np.argsort(which, kind="stable")
    members = np.split(flows[order], np.cumsum(np.bincount(which))[:-1])
    found = [
        (tuple(file[begins[at] : ends[at]].tolist()), mine)
        for at, mine in zip(first.tolist(), members, strict=True)
    ]
    return sorted(found, key=lambda entry: entry[0])


def _grouped(alike: _Alike, sets: Sequence[tuple[Point, Ints]]) -> list[SameTraffic]:
    """Flows together whose points are the same two; of others, those in the same files."""
    sided = [
        (files, flows, _sides(files, alike))
        for files, flows in sets
        if any(not alike.partners[file].isdisjoint(files) for file in files)
    ]
    point = _points([sides for *_, sides in sided if sides], alike)
    pairs: dict[tuple[Point, Point], list[Ints]] = {}
    found: list[SameTraffic] = []
    for files, flows, sides in sided:
        between = {point[file] for file in files} if sides else set()
        if len(between) == 2:
            one, other = sorted(between)
            pairs.setdefault((one, other), []).append(flows)
        else:
            found.append(SameTraffic(_fewest(files, alike), flows, joinable=False))
    joinable = [
        SameTraffic(points, np.sort(np.concatenate(flows)), joinable=True) for points, flows in pairs.items()
    ]
    return joinable + found


_Sides = tuple[set[int], set[int]]


def _sides(files: Point, alike: _Alike) -> _Sides | None:
    """The files in two sets of which no two files show the same; None if it takes more, or there are copies."""
    members = set(files)
    found: list[_Sides] = []
    for file in files:
        if not any(file in one or file in other for one, other in found):
            own = _reached(file, members, alike)
            if own is None:
                return None
            found.append(own)
    sides: _Sides = (set(), set())
    for own in sorted(found, key=lambda own: not own[1]):  # those that tell both sides first
        near, far = own[::-1] if _turned(own, sides, alike) else own
        sides = (sides[0] | near, sides[1] | far)
    return sides


def _reached(first: int, members: set[int], alike: _Alike) -> _Sides | None:
    """The sides of the files that ``first`` leads to from one to the next that shows the same, its own side first."""
    sides: _Sides = ({first}, set())
    edge, near = {first}, 0
    while edge:
        if any(alike.copies[file] & members for file in edge):
            return None
        near = 1 - near
        edge = set().union(*(alike.partners[file] & members for file in edge)) - sides[near]
        sides[near].update(edge)
    return None if sides[0] & sides[1] else sides


def _turned(own: _Sides, sides: _Sides, alike: _Alike) -> bool:
    """Whether the first of ``own`` belongs to the second of ``sides``: files of one point are of different times."""
    straight, crossed = (
        sum(
            alike.overlap(one, other)
            for which in (0, 1)
            for one in own[which]
            for other in sides[which ^ turn]
        )
        for turn in (0, 1)
    )
    if straight != crossed or own[1] or not sides[0]:
        return straight > crossed
    [file] = own[0]
    return min(sides[0] | sides[1], key=lambda other: (abs(other - file), other)) in sides[1]


def _points(sided: Sequence[_Sides], alike: _Alike) -> dict[int, Point]:
    """The point of each file: files are of one point that stand on one side of any flow, or by the fourth law."""
    together = [side for sides in sided for side in sides]
    for file in set().union(*together):
        together += [
            {one, other}
            for one, other in pairwise(sorted(alike.partners[file]))
            if other == one + 1 and alike.last[one] <= alike.first[other] and other not in alike.partners[one]
        ]
    point: dict[int, set[int]] = {}
    for mine in together:
        whole = mine.union(*(point.get(file, ()) for file in mine))
        point.update(dict.fromkeys(whole, whole))
    return {file: tuple(sorted(files)) for file, files in point.items()}


def _fewest(files: Point, alike: _Alike) -> tuple[Point, ...]:
    """The files as sets of which no two files show the same: each in the first set that it fits."""
    points: list[list[int]] = []
    for file in files:
        fitting = [point for point in points if alike.partners[file].isdisjoint(point)]
        if fitting:
            fitting[0].append(file)
        else:
            points.append([file])
    return tuple(map(tuple, points))
