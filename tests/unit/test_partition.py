"""The law of the project: attribution is a partition. For any claims whatever, and for every recording there is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import recordings

from ackward.diagnosis.attribution import partition
from ackward.diagnosis.claims import Claims
from ackward.diagnosis.diagnose import diagnose
from ackward.diagnosis.exchanges import cut
from ackward.diagnosis.flows import join
from ackward.diagnosis.partition import CAUSES, PRIORITY, settle
from ackward.model.causes import Cause

SPANS = [(0, 100), (150, 180), (1000, 1001)]


def timeline():
    """Just what settle() reads of a timeline: three exchanges."""
    start, end = (np.array(column, np.int64) for column in zip(*SPANS, strict=True))
    return SimpleNamespace(start=start, end=end, count=len(start))


claim = st.tuples(
    st.sampled_from(PRIORITY), st.integers(0, 2), st.integers(-20, 1020), st.integers(0, 90), st.booleans()
)


def as_claims(drawn):
    return [
        Claims.of(
            cause,
            np.array([exchange]),
            np.array([start]),
            np.array([start + length]),
            observed=observed,
            evidence=np.array([number]),
        )
        for number, (cause, exchange, start, length, observed) in enumerate(drawn)
    ]


@given(st.lists(claim, max_size=25))
def test_parts_tile_every_exchange(drawn):
    parts = settle(timeline(), as_claims(drawn))
    for exchange, (start, end) in enumerate(SPANS):
        mine = parts.exchange == exchange
        assert parts.start[mine][0] == start
        assert parts.end[mine][-1] == end
        assert (parts.start[mine][1:] == parts.end[mine][:-1]).all()
        assert (parts.end[mine] > parts.start[mine]).all()


@given(st.lists(claim, max_size=25))
def test_the_highest_claim_wins_each_moment(drawn):
    """Against a loop that looks at one nanosecond at a time."""
    parts = settle(timeline(), as_claims(drawn))
    for exchange, (start, end) in enumerate(SPANS):
        for moment in range(start, end):
            here = [c for c in drawn if c[1] == exchange and c[2] <= moment < c[2] + c[3]]
            best = min(here, key=lambda c: (PRIORITY.index(c[0]), not c[4]), default=None)
            index = np.flatnonzero(
                (parts.exchange == exchange) & (parts.start <= moment) & (moment < parts.end)
            )
            assert len(index) == 1
            expected = (best[0], best[4]) if best else (Cause.UNKNOWN, False)
            assert (CAUSES[parts.cause[index[0]]], bool(parts.observed[index[0]])) == expected


def test_priority_names_every_cause_once():
    assert sorted(PRIORITY) == sorted(Cause)


@pytest.mark.parametrize("name", recordings.names())
def test_every_recording_is_partitioned(name):
    """Report itself refuses causes that do not add up; the parts must also tile exchange by exchange."""
    recording = recordings.load(name)
    line = cut(*join(recording))
    parts = partition(line)
    assert np.bincount(parts.exchange, weights=parts.ns).tolist() == (line.end - line.start).tolist()
    report = diagnose(recording).report
    assert report.exchanges >= line.count > 0


@given(st.sampled_from(recordings.names()), st.data())
def test_a_recording_with_holes_is_still_partitioned(name, data):
    """Rows may be missing anywhere (a watch that begins late, a recorder under pressure): no nonsense, no traceback."""
    recording = recordings.load(name)
    seed = data.draw(st.integers(0, 2**16))
    share = data.draw(st.floats(0, 1))
    keep = np.random.default_rng(seed).random(len(recording.segments)) < share
    holed = replace(recording, segments=recording.segments[keep])
    line = cut(*join(holed))
    parts = partition(line)
    assert int(parts.ns.sum()) == int((line.end - line.start).sum())
    assert (line.end > line.start).all()
    diagnose(holed)


@given(st.sampled_from(recordings.names()), st.integers(0, 2**16))
def test_scrambled_fields_never_break_the_law(name, seed):
    """Even numbers that no TCP would send (a race in the recorder) are partitioned without a traceback."""
    recording = recordings.load(name)
    generator = np.random.default_rng(seed)
    segments = recording.segments.copy()
    for field in ("seq", "ack", "bytes", "kind", "snd_una", "snd_nxt", "write_seq", "min_rtt_us"):
        rows = generator.random(len(segments)) < 0.1
        segments[field][rows] = generator.permutation(segments[field])[rows]
    diagnose(replace(recording, segments=segments))


def test_exchanges_of_a_flow_never_overlap():
    for name in recordings.names():
        line = cut(*join(recordings.load(name)))
        same = line.flow_of[1:] == line.flow_of[:-1]
        assert (line.start[1:][same] >= line.end[:-1][same]).all(), name
