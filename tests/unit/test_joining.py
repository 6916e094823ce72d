"""Two captures become one by one clock: offset, drift and steps of the second are worked out and taken away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.dialogue import CLIENT, SERVER

from ackward.diagnosis import clocks
from ackward.diagnosis.clocks import RESOLUTION, Sightings, compare
from ackward.diagnosis.joining import join_captures
from ackward.diagnosis.wire import WireFlow, WireFlows, view
from ackward.loop.explaining import clock_in_words
from ackward.model.segments import WIRE_SEGMENT, Flag, Kind, Vantage

MS, S = 1_000_000, 1_000_000_000
#: 2020, as captures show times: no float holds them to the nanosecond.
EPOCH = 1_577_836_800 * S


@dataclass
class Path:
    """Segments both ways between two hosts, a queue before each of them; times in nanoseconds."""

    left: np.ndarray
    arrived: np.ndarray
    to_server: np.ndarray

    @classmethod
    def busy(cls, segments, seconds, path, queue, seed):
        random = np.random.default_rng(seed)
        left = np.sort(random.integers(0, round(seconds * S), segments))
        took = path + random.exponential(queue, segments).astype(np.int64)
        return cls(left, left + took, random.random(segments) < 0.5)


def skewed(times, offset, drift, steps=()):
    """What a second clock shows at these times."""
    shown = times + offset + np.rint(drift * times).astype(np.int64)
    for moment, by in steps:
        shown += np.where(times >= moment, by, 0)
    return shown


def captures(path, offset, drift, steps=(), *, swapped=False):
    """Both captures of a path, and the true times of the second one's rows, which are numbered by ``packet``."""
    size = len(path.left)
    rows = np.zeros(size, WIRE_SEGMENT)
    rows["to_server"] = path.to_server
    rows["bytes"] = 100
    rows["tcp_flags"] = Flag.ACK
    for to_server in (True, False):
        mine = path.to_server == to_server
        rows["seq"][mine] = 1000 + 100 * np.arange(np.count_nonzero(mine))
    at_server = np.where(path.to_server, path.arrived, path.left)
    at_client = np.where(path.to_server, path.left, path.arrived)
    here, there = (at_server, at_client) if swapped else (at_client, at_server)
    first, second = rows.copy(), rows.copy()
    first["time_ns"], second["time_ns"] = EPOCH + here, EPOCH + skewed(there, offset, drift, steps)
    first = first[np.argsort(here, kind="stable")]
    second = second[np.argsort(there, kind="stable")]
    first["packet"], second["packet"] = np.arange(size), size + np.arange(size)
    return first, second, EPOCH + np.sort(there)


def joined(first, second):
    return join_captures(WireFlows.of([WireFlow(CLIENT, SERVER, 1460)]), first, second)


def errors(path, *skew, **options):
    """How far the corrected times are off; checks that nothing arrives before it left."""
    first, second, truth = captures(path, *skew, **options)
    found = joined(first, second)
    corrected = np.sort(found.rows[found.rows["packet"] >= len(first)], order="packet")["time_ns"]
    by_key = {(row["to_server"], row["seq"]): row["time_ns"] for row in first}
    other = np.array([by_key[row["to_server"], row["seq"]] for row in second])
    arrived = second["to_server"] != options.get("swapped", False)
    took = np.where(arrived, corrected - other, other - corrected)
    assert took.min() >= -RESOLUTION
    return np.abs(corrected - truth), found


SKEWS = {
    "offset": st.integers(-(10**17), 10**17),
    "drift": st.floats(-200e-6, 200e-6),
    "path": st.integers(20_000, 100 * MS),
    "queue": st.integers(0, 20 * MS),
    "seconds": st.floats(0.1, 3600),
    "seed": st.integers(0, 2**32),
}


@settings(max_examples=60, deadline=None)
@given(**SKEWS, swapped=st.booleans())
def test_times_are_right_to_the_mean_queue(offset, drift, path, queue, seconds, seed, swapped):
    """On a path as long there as back, with a hundred segments each way, also where a drift is too small to tell.

    The capture lasts twenty times the path at least: else it is too short for a drift.
    """
    path = min(path, round(seconds * S / 20))
    error, found = errors(Path.busy(200, seconds, path, queue, seed), offset, drift, swapped=swapped)
    assert error.max() <= queue + RESOLUTION
    assert found.flows[0].seen_from == "both"
    assert abs(found.flows[0].min_rtt_ns - 2 * path) <= 2 * queue + RESOLUTION


@pytest.mark.parametrize("swapped", [False, True])
def test_drift_and_ends_are_told(swapped):
    path = Path.busy(2000, 600, 10 * MS, 2 * MS, 1)
    _, found = errors(path, -3 * S, 20e-6, swapped=swapped)
    assert found.clock.drift * 1e6 == pytest.approx([20], abs=0.1)
    assert clock_in_words("b.pcap", found.clock) == (
        f"the clock of b.pcap is {found.clock.ahead[0] / 1e6:+.3f} ms ahead at the start and gains 20.0 ppm"
    )
    seen_there = found.rows[found.rows["packet"] >= 2000]
    assert set(seen_there["vantage"]) == {Vantage.CLIENT if swapped else Vantage.SERVER}
    assert set(seen_there["kind"][seen_there["to_server"] != swapped]) == {Kind.RECEIVED}
    assert (np.diff(found.rows["time_ns"]) >= 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_queues_are_not_taken_for_drift(seed):
    """Ten seconds of queues of 5 ms, and clocks that run alike: no drift is told."""
    _, found = errors(Path.busy(200, 10, 20 * MS, 5 * MS, seed), 7 * MS, 0.0)
    assert found.clock.drift.tolist() == [0]
    assert clock_in_words("b", found.clock).endswith("ms ahead")


@settings(max_examples=50, deadline=None)
@given(
    by=st.integers(-(10**15), 10**15),
    at=st.floats(0.2, 0.8),
    drift=st.floats(-200e-6, 200e-6),
    path=st.integers(20_000, 20 * MS),
    seed=st.integers(0, 2**32),
)
def test_a_clock_that_steps(by, at, drift, path, seed):
    """Forward or back: off by at most half a round trip and the queues, also where the step was not noticed.

    Only the few segments next to the step may be taken for ones of its other side.
    """
    queue = path // 10
    traffic = Path.busy(400, 60, path, queue, seed)
    error, found = errors(traffic, 0, drift, [(round(at * 60 * S), by)])
    assert np.sort(error)[-8] <= path + 8 * queue + RESOLUTION
    assert error.max() <= path + 20 * queue + RESOLUTION + abs(by)
    if abs(by) > 5 * path + 60 * S * 500e-6:
        assert len(found.clock.steps) == 1
        assert found.clock.steps[0] == pytest.approx(by, rel=1e-3, abs=5 * path)
        assert "later it steps or changes its pace (times: 1)" in clock_in_words("b", found.clock)


def test_steps_there_and_back():
    traffic = Path.busy(900, 60, MS, MS // 10, 5)
    error, found = errors(traffic, 5 * MS, 50e-6, [(20 * S, 30 * S), (40 * S, -30 * S)])
    assert error.max() < MS // 5
    assert len(found.clock.steps) == 2


def sightings(ahead, arrived, time=None):
    size = len(ahead)
    time = np.arange(size) * MS if time is None else np.array(time)
    return Sightings(np.arange(size), time, np.array(ahead), np.array(arrived, bool))


def test_a_segment_that_was_taken_for_another_is_left_out():
    ahead = [MS, -MS] * 20
    ahead[21] = 5 * S  # left there, it seems, long after it had come here
    clock = compare(sightings(ahead, [True, False] * 20))
    assert clock.ahead.tolist() == [0]
    assert not len(clock.steps)


def test_what_is_no_clock_joins_nothing(monkeypatch):
    assert compare(sightings([], [])) is None
    assert compare(sightings([5, 6, 7], [True] * 3)) is None
    monkeypatch.setattr(clocks, "MOST_STEPS", 20)
    wild = [MS * (1 + 10 * (row // 4 % 7)) for row in range(400)]
    assert (
        compare(sightings([w + (MS if row % 2 else -MS) for row, w in enumerate(wild)], [0, 1] * 200)) is None
    )


def test_guesses_where_each_capture_alone_was_taken_move_nothing():
    """Where no end is near, each capture takes itself to be between the hosts, and moves times."""
    path = Path.busy(300, 10, 20_000, 0, 2)
    first, second, truth = captures(path, 0, 0.0)
    for rows in (first, second):
        rows["ack"] = 1000 + 100 * np.array(
            [np.count_nonzero(rows["to_server"][:at] != to) for at, to in enumerate(rows["to_server"])]
        )
    flows, _ = view(WireFlows.of([WireFlow(CLIENT, SERVER, 1460)]), first)
    assert flows[0].seen_from == "between"
    found = joined(first, second)
    assert found.clock.ahead.tolist() == [0]
    assert not found.clock.drift.any()
    corrected = np.sort(found.rows[found.rows["packet"] >= len(first)], order="packet")["time_ns"]
    assert (corrected == truth).all()


def test_other_traffic_is_not_joined():
    first, second, _ = captures(Path.busy(50, 1, MS, 0, 1), 0, 0)
    second["seq"] += 12345
    assert joined(first, second) is None


@pytest.mark.parametrize("shape", ["random", "convex", "flat", "one"])
def test_hulls_lie_below_all_points_and_touch_them(shape):
    random = np.random.default_rng(3)
    times = np.arange(3000.0) if shape != "one" else np.zeros(1)
    values = {
        "random": random.integers(0, 10**6, 3000) * 1.0,
        "convex": (times - 700) ** 2,
        "flat": times * 0,
        "one": times,
    }
    x, y = clocks._hull(times, values[shape])
    assert (np.interp(times, x, y) <= values[shape] + 1e-6).all()
    assert set(zip(x, y, strict=True)) <= set(zip(times, values[shape], strict=True))
    assert (np.diff(clocks._edges(x, y)) > 0).all()
