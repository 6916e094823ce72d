"""The steps of a ladder and the evidence: what was lost never arrives, what arrived does, whatever offload made of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import recordings
from tests.unit import report_factory

from ackward.diagnosis.diagnose import diagnose
from ackward.diagnosis.findings import EVIDENCE
from ackward.diagnosis.ladder import MOST_STEPS, _arrivals
from ackward.loop.analyzing import analyze
from ackward.model.causes import Cause, End
from ackward.model.report import Finding, Ladder, LadderStep
from ackward.model.segments import Kind
from ackward.report import ladder
from ackward.report.html import render

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
BOTH = ("client", "server")


def found(name: str, *ends: str) -> tuple[Finding, Ladder]:
    finding = analyze([CORPUS / f"{name}.{end}.pcap" for end in ends or BOTH]).report.findings[0]
    assert finding.ladder
    return finding, finding.ladder


def lost(picture: Ladder) -> list[LadderStep]:
    return [step for step in picture.steps if step.kind == "segment" and step.arrives_ns is None]


def test_a_lost_syn_does_not_arrive_and_the_next_one_does() -> None:
    finding, picture = found("syn-loss")
    [first] = lost(picture)
    assert (first.at_ns, first.flags) == (0, "SYN")
    again = next(step for step in picture.steps if step.flags == "SYN" and step is not first)
    assert again.at_ns == picture.stalls[0].end_ns
    assert again.arrives_ns
    assert not again.estimated
    assert 9_000_000 < again.arrives_ns - again.at_ns < 12_000_000
    assert finding.evidence == [
        "+0.000 ms client: sends 0 B, SYN, not seen to arrive",
        f"+{again.at_ns / 1e6:.3f} ms client: sends 0 B, SYN",
    ]


def test_a_timeout_shows_the_loss_the_lost_retry_and_the_repair() -> None:
    finding, picture = found("retransmission-timeout")
    [stall] = picture.stalls
    first, retry = lost(picture)
    assert first.at_ns == stall.start_ns
    assert stall.start_ns < retry.at_ns < stall.end_ns
    [repair] = [step for step in picture.steps if step.at_ns == stall.end_ns]
    assert repair.arrives_ns == picture.elapsed_ns
    assert not any(step.estimated for step in picture.steps)
    last = finding.evidence[-3:]
    assert [line.endswith("not seen to arrive") for line in last] == [True, True, False]
    assert last[-1].startswith(f"+{repair.at_ns / 1e6:.3f} ms server: sends 100 B")


@pytest.mark.parametrize("name", ["tail-loss", "fast-retransmit"])
@pytest.mark.parametrize("offload", ["", "-segmented"])
def test_of_an_offloaded_sending_only_the_lost_part_does_not_arrive(name: str, offload: str) -> None:
    finding, picture = found(name + offload)
    gone = {number for step in lost(picture) for number in range(step.seq, step.seq + step.bytes)}
    again = {
        number
        for step in picture.steps
        if step.at_ns > lost(picture)[-1].at_ns and step.arrives_ns and step.sender is End.SERVER
        for number in range(step.seq, step.seq + step.bytes)
    }
    assert gone
    assert gone <= again  # all of it was repaired
    assert any("not seen to arrive" in line for line in finding.evidence)


@pytest.mark.parametrize(
    "name", ["slow-start", "slow-start-segmented", "standoff", "nagle", "delayed-ack", "congestion-window"]
)
def test_where_nothing_is_lost_each_byte_is_drawn_once_and_arrives(name: str) -> None:
    _, picture = found(name)
    assert not lost(picture)
    for sender in End:
        data = [step for step in picture.steps if step.bytes and step.sender is sender and not step.note]
        assert all(before.seq + before.bytes <= after.seq for before, after in pairwise(data))
        assert not any(step.estimated for step in data)


@pytest.mark.parametrize("end", BOTH)
def test_from_one_end_alone_nothing_is_called_lost(end: str) -> None:
    for name in ("fast-retransmit", "slow-start"):
        _, picture = found(name, end)
        assert not lost(picture)
        assert all(step.estimated for step in picture.steps)


@pytest.mark.parametrize("name", ["standoff-both", "standoff-ipv6-both"])
def test_a_socket_does_not_see_the_syn_that_made_it_and_that_is_no_loss(name: str) -> None:
    for finding in diagnose(recordings.load(name)).report.findings:
        assert finding.ladder
        assert not lost(finding.ladder)


def test_what_seems_to_arrive_before_it_left_is_not_lost() -> None:
    """Two clocks that disagree: the arrival is there, only its time is not known."""
    recording = recordings.load("standoff-both")
    segments = recording.segments.copy()
    segments["time_ns"][(segments["kind"] == Kind.RECEIVED) & (segments["bytes"] == 200)] -= 1_000_000
    [finding] = diagnose(replace(recording, segments=segments)).report.findings
    assert finding.ladder
    assert not lost(finding.ladder)
    [held] = [step for step in finding.ladder.steps if step.kind == "segment" and step.bytes == 200]
    assert held.estimated


@given(st.data())
def test_arrivals_belong_to_the_latest_earlier_sending_and_never_cross(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.booleans(), max_size=12))
    sent = [row for row, leaves in enumerate(rows) if leaves]
    came = [row for row, leaves in enumerate(rows) if not leaves]
    pairs = sorted(_arrivals(sent, came).items())
    assert all(leaves < arrives for leaves, arrives in pairs)
    assert [arrives for _, arrives in pairs] == sorted({arrives for _, arrives in pairs})
    # None that found no sending could have had one; and no later sending was free.
    for arrives in set(came) - {arrives for _, arrives in pairs}:
        assert all(leaves > arrives or leaves in dict(pairs) for leaves in sent)
    for leaves, arrives in pairs:
        assert all(other in dict(pairs) for other in sent if leaves < other < arrives)


def test_one_sending_of_two_is_lost_or_none() -> None:
    assert _arrivals([1, 5], [7]) == {5: 7}
    assert _arrivals([1, 5], [3]) == {1: 3}
    assert _arrivals([1, 5], [7, 9]) == {1: 7, 5: 9}  # sent again needlessly: both arrive, in order


def test_a_long_ladder_shows_every_flight_and_says_what_it_leaves_out() -> None:
    finding, picture = found("slow-start")
    sent = [step for step in picture.steps if step.sender is End.SERVER and step.bytes]
    for begin, end in ((121, 122), (202, 203), (282, 284)):
        assert any(begin * 1_000_000 <= step.at_ns <= end * 1_000_000 for step in sent)
    left_out = sum(step.left_out for step in picture.steps)
    assert len(picture.steps) == MOST_STEPS
    assert left_out == 35
    assert len(finding.evidence) <= EVIDENCE
    page = render(analyze([CORPUS / f"slow-start.{end}.pcap" for end in BOTH]).report, title="slow start")
    assert "35 segments are left out where the dotted lines stand." in page
    assert page.count('class="gap"') == sum(step.left_out > 0 for step in picture.steps)
    assert "28 segments left out" in page


def test_a_gap_parts_a_run_and_stands_between_its_steps() -> None:
    steps = [
        LadderStep(at_ns=at, arrives_ns=at + 400, sender=End.SERVER, seq=at, bytes=100, left_out=out)
        for at, out in ((0, 0), (100, 0), (200, 17))
    ]
    svg = ladder.draw(Ladder(elapsed_ns=600, steps=steps, stalls=[]), Cause.SLOW_START, None, "ladder-1")
    assert svg.count('class="gap"') == 1
    assert "17 segments left out" in svg
    assert "2 segments:" in svg


def test_a_heading_breaks_at_no_hyphen() -> None:
    report = report_factory.many_flows(1)
    heading = render(report, title="page").partition("<h1>")[2].partition("</h1>")[0]
    hyphens = [word for word in heading.split() if "-" in word]
    assert hyphens
    assert all(word.startswith('class="word">') for word in hyphens)
