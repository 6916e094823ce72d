"""Packets alone: what a capture at one host shows agrees with what that host's kernel told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests import recordings

from ackward.diagnosis.diagnose import diagnose, explain
from ackward.diagnosis.flows import join
from ackward.diagnosis.wire import WireFlow, view
from ackward.model.causes import Cause, End, Grade
from ackward.model.report import Capture
from ackward.model.segments import WIRE_FIELDS, WIRE_SEGMENT, Kind


def as_capture(recording):
    """What tcpdump on the watched host would have kept: its segments, without any state."""
    flows, rows = join(recording)
    rows = rows[np.isin(rows["kind"], (Kind.SENT, Kind.RECEIVED))]
    wire = np.zeros(len(rows), WIRE_SEGMENT)
    for name, _ in WIRE_FIELDS:
        wire[name] = rows[name]
    wire["window"] = 1 << 20
    known = [WireFlow(flow.client, flow.server, True, 1448) for flow in flows]
    return view(known, wire)


def diagnosis(name):
    return explain(*as_capture(recordings.load(name)), Capture(source=name)).report


@pytest.mark.parametrize("view", ["client", "server"])
@pytest.mark.parametrize("recipe", ["standoff", "standoff-ipv6"])
def test_live_and_captured_views_agree(recipe, view):
    """Cause, count and lost time: to 1 ms or 2 %."""
    live = diagnose(recordings.load(f"{recipe}-{view}")).report
    captured = diagnosis(f"{recipe}-{view}")
    [told], [shown] = live.findings, captured.findings
    assert (shown.cause, shown.grade) == (Cause.STANDOFF, Grade.INFERRED)
    assert (shown.holding_end, shown.delaying_end) == (End.CLIENT, End.SERVER)
    assert shown.exchanges == told.exchanges
    assert captured.exchanges == live.exchanges
    assert abs(shown.lost_ns.total - told.lost_ns.total) <= max(
        1e6 * told.exchanges, 0.02 * told.lost_ns.total
    )


@pytest.mark.parametrize("view", ["client", "server"])
@pytest.mark.parametrize(
    ("recipe", "cause"), [("healthy", None), ("slow-server", Cause.SERVER), ("late-writer", Cause.CLIENT)]
)
def test_controls_stay_controls(recipe, cause, view):
    report = diagnosis(f"{recipe}-{view}")
    assert report.findings == []
    if cause:
        assert report.causes[cause].ns > 0.9 * report.elapsed_ns


@pytest.mark.parametrize("view", ["client", "server"])
@pytest.mark.parametrize("recipe", sorted(recordings.RECIPES))
def test_the_vantage_point_is_worked_out(recipe, view):
    """On a path of 10 us the two halves of a round trip are hardly apart.

    Then it may say "between", never the wrong end.
    """
    [flow], _ = as_capture(recordings.load(f"{recipe}-{view}"))
    assert flow.seen_from in (view, "between")


@pytest.mark.parametrize("view", ["client", "server"])
def test_the_vantage_point_is_plain_on_a_real_path(view):
    """The same recording with 10 ms of path between the hosts."""
    recording = recordings.load(f"standoff-{view}")
    rows = recording.segments.copy()
    order = np.argsort(rows["time_ns"])
    rows = rows[order]
    # Whatever arrives, arrives 10 ms later, and so does all that follows it.
    rows["time_ns"] += np.cumsum(np.where(rows["kind"] == Kind.RECEIVED, 10_000_000, 0))
    [flow], _ = as_capture(replace(recording, segments=rows))
    assert flow.seen_from == view
    assert flow.min_rtt_ns > 9_000_000
