"""Explain what was read from captures: the same diagnosis as for live sockets, from packets alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ackward.capture.reading import WireCapture
from ackward.capture.wire_flows import WireFlows as CapturedFlows
from ackward.diagnosis.clocks import Clock
from ackward.diagnosis.diagnose import Diagnosis, explain
from ackward.diagnosis.flows import SEEN_FROM, Flows
from ackward.diagnosis.joining import join_captures
from ackward.diagnosis.points import SameTraffic, same_traffic
from ackward.diagnosis.segmented import Ints
from ackward.diagnosis.traffic import Traffic
from ackward.diagnosis.wire import WireFlows, captured, view
from ackward.model.report import Capture
from ackward.model.segments import Segments
from ackward.model.units import plural

#: Of an end whose SYN was not captured: what Ethernet allows.
MOST = 1460


def explain_capture(capture: WireCapture) -> Diagnosis:
    """Explain what was read."""
    traffic, clocks = _traffic(_known(capture.flows), capture)
    times = capture.segments["time_ns"]
    notes = [*_places(traffic.flows), *_without_syns(capture.flows), *clocks, *map(str, capture.problems)]
    notes += [
        f"{plural(count, 'packet')} left out: {what}" for what, count in capture.skipped.items() if count
    ]
    facts = Capture(
        source=", ".join(source.name for source in capture.sources),
        seconds=round((int(times.max()) - int(times.min())) / 1e9, 3) if len(times) else 0.0,
        flows=len(traffic.flows),
        segments=len(traffic),
        notes=notes,
    )
    return explain(traffic, facts)


def _without_syns(flows: CapturedFlows) -> list[str]:
    count = int(np.count_nonzero(~flows.table["window_scale_known"]))
    if not count:
        return []
    said = f"{plural(count, 'connection')} without both SYNs: how large their windows are is not known"
    return [f"{said}, so a wait for one is told only where it was closed"]


def _known(flows: CapturedFlows) -> WireFlows:
    table = flows.table
    mss = np.minimum(
        *(np.where(table[name] == 0, MOST, table[name]) for name in ("client_mss", "server_mss"))
    )
    clients, servers = table["client"].tolist(), table["server"].tolist()
    return WireFlows(
        flows.addresses("client"),
        flows.addresses("server"),
        mss.astype(np.int64),
        table["mptcp"],
        table["window_scale_known"],
        lambda number: (flows.endpoint(clients[number]), flows.endpoint(servers[number])),
    )


def _traffic(known: WireFlows, capture: WireCapture) -> tuple[Traffic, list[str]]:
    """The flows and their rows, each segment once from each end; and how it came to that, in words."""
    segments, sources = capture.segments, capture.sources
    if len(sources) < 2:
        return captured(known, segments), []
    file = np.searchsorted([source.first_packet for source in sources], segments["packet"], side="right") - 1
    groups = same_traffic(segments, file, len(sources))
    numbers = np.arange(len(known))
    left, alone = np.ones(len(known), bool), np.ones(len(known), bool)
    for group in groups:
        alone[group.flows] = False
    counted = np.ones(len(segments), bool)
    parts: list[tuple[Ints, Flows, Segments]] = []
    notes: list[str] = []
    for group in groups:
        joined = None
        if group.joinable:
            # What only one of the two points shows may go by the same clock.
            elsewhere = np.isin(file, np.concatenate(group.points), invert=True)
            mine = left & alone & (np.bincount(segments["flow"][elsewhere], minlength=len(known)) == 0)
            mine[group.flows] = True
            flows = np.flatnonzero(mine)
            ends = [_of_flows(segments[np.isin(file, point)], flows, len(known)) for point in group.points]
            joined = join_captures(known.chosen(flows), *ends)
        names = [_named([sources[number].name for number in point]) for point in group.points]
        if joined:
            left[flows] = False
            parts.append((flows, joined.flows, joined.rows))
            clock = clock_in_words(names[1], joined.clock)
            notes.append(f"two views of {plural(joined.pairs, 'flow')}: by the clock of {names[0]}, {clock}")
        else:
            again = np.isin(segments["flow"], group.flows)
            most = max(group.points, key=lambda point: np.count_nonzero(again & np.isin(file, point)))
            counted &= ~again | np.isin(file, most)
            notes.append(_only_one(group, names, group.points.index(most)))
    segments = segments[counted] if not counted.all() else segments
    if not parts:
        return captured(known, segments), notes
    rest = numbers[left]
    if len(rest):
        parts.append((rest, *view(known.chosen(rest), _of_flows(segments, rest, len(known)))))
    return _together(parts, len(known)), notes


def _of_flows(segments: Segments, flows: Ints, count: int) -> Segments:
    """The segments of these flows of ``count``, numbered in this order."""
    number = np.full(count, -1, np.int32)
    number[flows] = np.arange(len(flows))
    flow = number[segments["flow"]]
    chosen: Segments = segments[flow >= 0]
    chosen["flow"] = flow[flow >= 0]
    return chosen


def _together(parts: Sequence[tuple[Ints, Flows, Segments]], count: int) -> Traffic:
    """All parts of ``count`` flows as one traffic; each comes with the numbers that its flows have there."""
    if len(parts) == 1:
        [(_, flows, rows)] = parts
        return Traffic.of(flows, rows)
    for numbers, _, rows in parts:
        rows["flow"] = numbers[rows["flow"]]
    whole = np.concatenate([rows for *_, rows in parts])
    by_number = {
        number: flow
        for numbers, flows, _ in parts
        for number, flow in zip(numbers.tolist(), flows, strict=True)
    }
    ordered = whole[np.lexsort((whole["time_ns"], whole["flow"]))]
    return Traffic.of(Flows.of([by_number[number] for number in range(count)]), ordered)


def _named(names: Sequence[str]) -> str:
    """The files of one point, in words."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more of its point"


def _only_one(group: SameTraffic, names: Sequence[str], kept: int) -> str:
    """What is said of traffic in several files that could not be joined."""
    why = "copies or more than two points" if not group.joinable else "no clock fits both"
    return (
        f"the same segments of {plural(len(group.flows), 'flow')} stand in {', '.join(names)} ({why}): only those of "
        f"{names[kept]} were counted; name the captures of two ends to see both"
    )


def clock_in_words(name: str, clock: Clock) -> str:
    """How the clock of a capture runs by that of the other one, in words."""
    ahead, drift, steps = int(clock.ahead[0]), clock.drift[0] * 1e6, clock.steps
    words = f"the clock of {name} is {ahead / 1e6:+.3f} ms ahead"
    if abs(drift) >= 0.05:
        words += f" at the start and {'gains' if drift > 0 else 'loses'} {abs(drift):.1f} ppm"
    if len(steps):
        largest = int(steps[np.abs(steps).argmax()])
        words += (
            f"; later it steps or changes its pace (times: {len(steps):,}), by up to {largest / 1e6:+.3f} ms"
        )
    return words


def _places(flows: Flows) -> list[str]:
    """Where the capture was taken, in words."""
    words = {
        "client": "at the client",
        "server": "at the server",
        "between": "between the hosts, or too near to tell",
        "both": "at both ends",
    }
    counts = Counter(SEEN_FROM[place] for place in flows.seen_from.tolist())
    return [
        f"captured {words[place]}: {count:,} of {plural(len(flows), 'flow')}"
        for place, count in counts.most_common()
    ]
