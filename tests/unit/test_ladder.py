"""The laws of the ladder diagram: time goes down and to scale, labels never overlap, texts are inert."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import drawing_factory, report_factory

from ackward.model.causes import Cause, End
from ackward.model.report import Ladder, LadderStep, Stall
from ackward.report import ladder

TEXTS = st.text(st.sampled_from("abW \n\t<&\u202e\u0301\u4e2d\ud800"), max_size=60)
MOMENTS = st.integers(-(10**9), 10**12)
LABELS = st.builds(
    ladder.Label,
    st.lists(st.just("x"), min_size=1, max_size=6).map(tuple),
    st.floats(0, 3000, allow_nan=False),
)


@st.composite
def ladders(draw: st.DrawFn) -> Ladder:
    at = draw(st.lists(MOMENTS, max_size=30))
    steps = [
        LadderStep(
            at_ns=moment,
            arrives_ns=draw(st.none() | MOMENTS),
            sender=draw(st.sampled_from(End)),
            kind=draw(st.sampled_from(["segment", "write-held", "ack-timer", "read"])),
            estimated=draw(st.booleans()),
            seq=draw(st.integers(0, 2**32)),
            bytes=draw(st.integers(0, 2**16)),
            flags=draw(st.sampled_from(["", "ACK", "PSH ACK"])),
            note=draw(TEXTS),
            left_out=draw(st.sampled_from([0, 0, 1, 12_345])),
        )
        for moment in at
    ]
    stalls = [
        Stall(start_ns=start, end_ns=start + draw(st.integers(0, 10**10)), label=draw(TEXTS))
        for start in draw(st.lists(MOMENTS, max_size=3))
    ]
    return Ladder(elapsed_ns=draw(st.integers(0, 10**12)), steps=steps, stalls=stalls)


def drawn(picture: Ladder, holding: End | None = End.CLIENT) -> ET.Element:
    return ET.fromstring(ladder.draw(picture, Cause.STANDOFF, holding, "ladder-1"))


def texts(svg: ET.Element, kind: str) -> list[ET.Element]:
    return [text for text in svg.iter("text") if kind in (text.get("class") or "").split()]


@given(st.lists(LABELS, max_size=40))
def test_labels_keep_their_order_and_never_overlap(labels: list[ladder.Label]) -> None:
    placed = ladder.place(labels, above=10.0)
    assert [(label.lines, label.wanted) for label in placed] == [
        (label.lines, label.wanted) for label in labels
    ]
    stacked = sorted(placed, key=lambda label: label.top)
    assert all(upper.top + upper.tall <= lower.top + 1e-6 for upper, lower in pairwise(stacked))
    assert [label.wanted for label in stacked] == sorted(label.wanted for label in labels)
    assert all(label.top >= 10.0 for label in placed)


@given(st.lists(LABELS, min_size=1, max_size=20))
def test_labels_with_room_stay_where_they_belong(labels: list[ladder.Label]) -> None:
    apart = [ladder.Label(label.lines, 1000.0 * (at + 1)) for at, label in enumerate(labels)]
    for label in ladder.place(apart):
        assert label.top + label.tall / 2 == pytest.approx(label.wanted)


def test_two_labels_for_one_moment_share_the_way() -> None:
    upper, lower = ladder.place([ladder.Label(("a",), 100.0), ladder.Label(("b",), 100.0)])
    assert upper.top + upper.tall == pytest.approx(100.0)
    assert lower.top == pytest.approx(100.0)


@given(ladders())
def test_time_only_goes_down(picture: Ladder) -> None:
    scale = ladder.scale_of(picture)
    assert list(scale.moments) == sorted(set(scale.moments))
    assert all(lower - upper >= ladder.LEAST - 1e-6 for upper, lower in pairwise(scale.heights))
    for moment, height in zip(scale.moments, scale.heights, strict=True):
        assert scale.height(moment) == pytest.approx(height)


@given(ladders())
def test_a_longer_interval_is_never_drawn_shorter(picture: Ladder) -> None:
    scale = ladder.scale_of(picture)
    intervals = sorted(
        (end - start, lower - upper)
        for (start, end), (upper, lower) in zip(pairwise(scale.moments), pairwise(scale.heights), strict=True)
    )
    assert all(shorter[1] <= longer[1] + 1e-6 for shorter, longer in pairwise(intervals))


def test_quiet_is_compressed_marked_and_named_and_the_rest_is_to_scale() -> None:
    picture = drawing_factory.standoff_ladder()
    scale = ladder.scale_of(picture)
    assert scale.breaks == ((21_000, 43_914_000),)
    quiet = scale.height(43_914_000) - scale.height(21_000)
    linear = 43_893_000 / 9_000 * ladder.FLIGHT
    assert quiet == pytest.approx(ladder.QUIET + ladder.DECADE * math.log10(linear / ladder.QUIET))
    # Flights of 9 us and a pause of 13 us, all in one proportion.
    assert scale.height(9_000) - scale.height(0) == pytest.approx(ladder.FLIGHT)
    assert scale.height(43_964_000) - scale.height(43_951_000) == pytest.approx(ladder.FLIGHT * 13 / 9)
    svg = drawn(picture)
    assert [text.text for text in texts(svg, "quiet")] == ["43.9 ms"]


@given(ladders(), st.none() | st.sampled_from(End))
def test_any_exchange_can_be_drawn_and_its_labels_do_not_overlap(
    picture: Ladder, holding: End | None
) -> None:
    svg = drawn(picture, holding)
    height = float((svg.get("viewBox") or "").split()[3])
    columns: dict[tuple[str | None, str], list[float]] = {}
    for text in svg.iter("text"):
        words = text.text or ""
        assert words.isprintable() or not words
        kind = (text.get("class") or "").split()[0]
        columns.setdefault((text.get("x"), kind), []).append(float(text.get("y") or "nan"))
    for lines in columns.values():
        assert all(lower - upper >= 14.8 for upper, lower in pairwise(sorted(lines)))  # coordinates: 0.1
        assert min(lines) > 0
        assert max(lines) <= height


@pytest.mark.parametrize(("holding", "x"), [(End.CLIENT, ladder._X[End.CLIENT]), (End.SERVER, None)])
def test_the_stall_is_shaded_beside_the_end_that_holds(holding: End, x: float | None) -> None:
    svg = drawn(drawing_factory.standoff_ladder(), holding)
    (area,) = [rect for rect in svg.iter("rect") if rect.get("class") == "stall"]
    start, width = float(area.get("x") or 0), float(area.get("width") or 0)
    if holding is End.CLIENT:
        assert start == x
    else:
        assert start + width == ladder._X[End.SERVER]
    assert texts(svg, "stalled")[0].text == "43.9 ms"
    assert "43,920,000 ns" in (area[0].text or "")


def test_arrows_slant_from_sender_to_receiver() -> None:
    svg = drawn(drawing_factory.standoff_ladder())
    arrows = [line for line in svg.iter("line") if line.get("marker-end")]
    ends = [(float(a.get("x1") or 0) < float(a.get("x2") or 0), a.get("class")) for a in arrows]
    assert ends == [(True, "data"), (False, "bare"), (True, "data"), (False, "data")]
    assert all(float(arrow.get("y2") or 0) > float(arrow.get("y1") or 0) for arrow in arrows)
    marks = [circle.get("class") for circle in svg.iter("circle")]
    assert marks == ["event write-held", "event read", "event ack-timer", "event read", "event read"]


def test_a_segment_that_never_arrived_ends_in_a_cross() -> None:
    finding = report_factory.long_transfer_finding()
    assert finding.ladder is not None
    svg = drawn(finding.ladder, End.SERVER)
    assert sum(path.get("class") == "lost" for path in svg.iter("path")) == 1


def test_a_burst_shares_one_label_and_a_note_keeps_its_own() -> None:
    finding = report_factory.long_transfer_finding()
    assert finding.ladder is not None
    lines = [text.text for text in texts(drawn(finding.ladder, End.SERVER), "label")]
    assert "120.000 ms 13.0 kB" in lines
    assert "9 segments: ACK" in lines
    assert "120.099 ms 1.45 kB" in lines  # the lost one has a note


def test_a_long_transfer_keeps_what_is_near_its_stall() -> None:
    steps = [
        LadderStep(at_ns=n * 1000, arrives_ns=n * 1000 + 400, sender=End.SERVER, seq=n, note=str(n))
        for n in range(5000)
    ]
    stall = Stall(start_ns=2_500_000, end_ns=2_501_000, label="here")
    picture = Ladder(elapsed_ns=5_000_000, steps=steps, stalls=[stall])
    svg = drawn(picture)
    arrows = [line for line in svg.iter("line") if line.get("marker-end")]
    assert len(arrows) == ladder.MOST_STEPS
    assert any("4,920 steps" in (text.text or "") for text in texts(svg, "quiet"))
    kept = [step.at_ns for step in ladder.nearest_to_stalls(picture)]
    assert kept == sorted(kept)
    assert all(2_400_000 < moment < 2_600_000 for moment in kept)


@pytest.mark.parametrize("name", report_factory.HOSTILE)
def test_hostile_names_are_text(name: str) -> None:
    step = LadderStep(at_ns=0, sender=End.CLIENT, flags=name, note=name)
    svg = ladder.draw(
        Ladder(elapsed_ns=1, steps=[step], stalls=[Stall(start_ns=0, end_ns=1, label=name)]),
        Cause.NAGLE,
        None,
        "ladder-1",
    )
    assert not re.search(r"<(?!/?(svg|title|marker|path|g|line|rect|text|circle)\b)", svg)
    assert svg.isprintable()
    svg.encode()  # no lone surrogate
