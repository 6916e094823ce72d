"""Attribution works through the traffic in stretches: where they begin and end makes no difference."""

from __future__ import annotations

import numpy as np
import pytest
from tests import recordings

from ackward.diagnosis import traffic
from ackward.diagnosis.comments import Comments
from ackward.diagnosis.diagnose import Diagnosis, diagnose
from ackward.diagnosis.flows import Flows
from ackward.loop.analyzing import analyze
from ackward.model.segments import Segments
from ackward.report.tables import NAMES, tables

CORPUS = recordings.DIRECTORY.parent / "corpus"


def whole_and_cut(monkeypatch: pytest.MonkeyPatch, explained) -> tuple[Diagnosis, Diagnosis]:
    monkeypatch.setattr(traffic, "STRETCH", 1 << 40)
    whole = explained()
    monkeypatch.setattr(traffic, "STRETCH", 1)
    return whole, explained()


def same(whole: Diagnosis, cut: Diagnosis) -> None:
    assert len(list(cut.attribution.traffic.stretches())) == max(len(cut.attribution.traffic.flows), 1)
    assert cut.report == whole.report
    for name in ("packet", "part", "role"):
        ours, theirs = (getattr(Comments.of(seen.attribution), name) for seen in (cut, whole))
        assert np.array_equal(ours, theirs), name
    ours, theirs = tables(cut), tables(whole)
    for name in NAMES:
        assert getattr(ours, name).collect().equals(getattr(theirs, name).collect()), name


@pytest.mark.parametrize("name", recordings.names())
def test_of_recordings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    same(*whole_and_cut(monkeypatch, lambda: diagnose(recordings.load(name))))


def test_of_the_whole_corpus_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = whole_and_cut(monkeypatch, lambda: analyze([CORPUS / "*.client.pcap"]))
    assert len(whole.report.findings) > 10
    same(whole, cut)


def test_no_flow_is_one_empty_stretch() -> None:
    empty: Segments = recordings.load("healthy-both").segments[:0]
    nothing = traffic.Traffic.of(Flows.of([]), empty)
    assert list(nothing.stretches()) == [(0, 0)]
    assert nothing.timeline(0, 0).count == 0
