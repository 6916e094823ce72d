"""An exchange without its wait: the laws of the replay, and the stalled recordings against those without a stall."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests import recordings
from tests.unit.dialogue import CLIENT, MSS, SERVER, a, q, rows_of

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.counterfactual import Savings, replay, savings
from ackward.diagnosis.diagnose import diagnose
from ackward.diagnosis.exchanges import cut
from ackward.diagnosis.partition import CAUSES, PRIORITY, settle
from ackward.diagnosis.wire import WireFlow, WireFlows, view
from ackward.loop.analyzing import analyze
from ackward.model.causes import Cause
from ackward.model.segments import Kind, Vantage
from ackward.model.units import duration
from ackward.report import terminal
from ackward.report.html import render

MS = 1_000_000
CORPUS = Path(__file__).parent.parent / "data" / "corpus"
ROUND_TRIP = [q(0, flags="S"), a(10, flags="SA"), q(10.05)]  # 10 ms


def timeline_of(packets, held=()):
    """The client's view of one connection; its kernel tells of writes that it ``held``, in milliseconds."""
    flows, rows = view(WireFlows.of([WireFlow(CLIENT, SERVER, MSS)]), rows_of(packets))
    writes = np.zeros(len(held), rows.dtype)
    writes["time_ns"], writes["kind"], writes["to_server"] = np.array(held) * MS, Kind.WRITE_HELD, True
    writes["vantage"] = Vantage.CLIENT
    rows = np.concatenate((rows, writes))
    return cut(flows, rows[np.argsort(rows["time_ns"], kind="stable")])


def saved(packets, *stalls, held=()):
    """Milliseconds that each remedy saves of stalls of the client, each (cause, start, end) in milliseconds."""
    timeline = timeline_of(packets, held)
    claims = [claim(0, cause, start * MS, end * MS, Vantage.CLIENT) for cause, start, end in stalls]
    parts = settle(timeline, claims)
    found = replay(timeline, parts, np.isin(parts.cause, [CAUSES.index(cause) for cause, _, _ in stalls]))
    return {name: (values / MS).round(1).tolist() for name, values in vars(found).items()}


def claim(exchange, cause, start, end, holding):
    return Claims.of(
        cause,
        np.array([exchange]),
        np.array([start]),
        np.array([end]),
        observed=True,
        holding=int(holding),
        delaying=1 - int(holding),
    )


def request(first, second, answer, *between):
    """A request in two segments and its answer, as the client sees them."""
    return [
        *ROUND_TRIP,
        q(first, 0, 100),
        *between,
        a(second - 0.01, 0, 0, 100),
        q(second, 100, 200),
        a(answer, 0, 100, 300),
    ]


def test_a_prompt_ack_takes_a_round_trip_and_no_hold_takes_nothing():
    found = saved(request(100, 154, 164), (Cause.STANDOFF, 100, 154))
    assert (found["quickack"], found["nodelay"]) == ([44.0], [54.0])


def test_the_round_trip_counts_from_the_data_that_the_ack_is_for_not_from_the_write():
    """The second write came 30 ms after the first: the prompt ACK was there 20 ms before it."""
    found = saved(request(100, 154, 164), (Cause.STANDOFF, 130, 154), held=[130])
    assert (found["quickack"], found["nodelay"]) == ([24.0], [24.0])


def test_what_the_program_took_between_two_held_writes_is_its_own_time():
    found = saved(request(100, 154, 164), (Cause.STANDOFF, 100, 154), held=[100, 140])
    assert (found["quickack"], found["nodelay"]) == ([14.0], [14.0])


def test_an_answer_does_not_overtake_what_the_peer_sent_meanwhile():
    """The server was still sending an earlier answer 4 ms before the next one."""
    packets = request(100, 154, 164, a(160, 0, 50, 100))
    assert saved(packets, (Cause.STANDOFF, 100, 154))["nodelay"] == [54.0]  # it came after the wait
    packets = request(100, 154, 164, a(153, 0, 50, 100))
    assert saved(packets, (Cause.STANDOFF, 100, 154))["nodelay"] == [11.0]


def test_a_wait_that_ends_in_another_wait_gains_nothing():
    stalls = [(Cause.STANDOFF, 100, 154), (Cause.RETRANSMISSION_TIMEOUT, 140, 154)]
    assert saved(request(100, 154, 164), *stalls)["nodelay"] == [0.0, 0.0]


def test_each_of_several_waits_of_an_exchange_is_shortened():
    """Three writes, two holds of 50 and 40 ms, each less a round trip: the answer comes at 130 ms instead of 200."""
    packets = [
        *ROUND_TRIP,
        q(100, 0, 100),
        a(149.9, 0, 0, 100),
        q(150, 100, 100),
        a(189.9, 0, 0, 200),
        q(190, 200, 100),
        a(200, 0, 100, 300),
    ]
    assert timeline_of(packets).count == 1
    found = saved(packets, (Cause.STANDOFF, 100, 150), (Cause.STANDOFF, 150, 190))
    assert found["quickack"] == [pytest.approx(40, abs=0.1), pytest.approx(30, abs=0.1)]


def test_a_larger_window_takes_the_waits_that_would_lie_beyond_the_last_byte():
    """Flights of 10, 20 and 40 segments: from 30 on there is one wait, for the last 10."""
    flights = [(100, 0, 10), (110, 10, 20), (120, 30, 40)]
    sent = [q(at, start * MSS, count * MSS) for at, start, count in flights]
    stalls = [(Cause.SLOW_START, 100, 110), (Cause.SLOW_START, 110, 120)]
    packets = [*ROUND_TRIP, *sent, a(130, 0, 100, 70 * MSS)]
    assert sum(saved(packets, *stalls)["initcwnd"]) == 10.0
    fitting = [*ROUND_TRIP, *sent[:2], a(130, 0, 100, 30 * MSS)]
    assert saved(fitting, stalls[0])["initcwnd"] == [10.0]


packet = st.tuples(st.floats(0, 300), st.booleans(), st.integers(0, 60), st.integers(0, 40))
drawn_claim = st.tuples(
    st.sampled_from(PRIORITY),
    st.integers(0, 6),
    st.floats(0, 300),
    st.floats(0, 120),
    st.sampled_from((-1, 0, 1)),
)


@given(
    st.lists(packet, min_size=4, max_size=30),
    st.lists(st.floats(0, 300), max_size=4),
    st.lists(drawn_claim, max_size=12),
)
def test_the_laws_hold_for_any_conversation_and_any_parts(drawn, held, claimed):
    packets = [
        *ROUND_TRIP,
        *((q if up else a)(20 + at, seq * 50, (size % 20) * 50, seq * 30) for at, up, seq, size in drawn),
    ]
    timeline = timeline_of(sorted(packets, key=lambda packet: packet.at), held)
    claims = [
        claim(min(number, timeline.count - 1), cause, int(start * MS), int((start + length) * MS), holding)
        for cause, number, start, length, holding in claimed
    ]
    parts = settle(timeline, claims)
    asked = np.ones(len(parts.start), bool)
    found = replay(timeline, parts, asked)
    for values in vars(found).values():
        assert (values >= 0).all()
        assert (values <= parts.ns).all()
    standoff = parts.cause == CAUSES.index(Cause.STANDOFF)
    assert (found.quickack <= found.nodelay)[standoff].all()
    released = {int(time) for time in timeline.time[timeline.fresh]}
    for end, held_by_nagle in zip(parts.end.tolist(), found.nodelay.tolist(), strict=True):
        assert held_by_nagle == 0 or end in released
    # Asked one by one, the waits say the same.
    for number in range(len(asked)):
        alone = replay(timeline, parts, np.arange(len(asked)) == number)
        assert all(
            np.array_equal(getattr(alone, name), values[[number]]) for name, values in vars(found).items()
        )


@pytest.mark.parametrize("view", recordings.VIEWS)
def test_without_its_stall_the_standoff_takes_what_a_healthy_request_takes(view):
    seen = diagnose(recordings.load(f"standoff-{view}")).attribution
    waits = np.flatnonzero(seen.parts.cause == CAUSES.index(Cause.STANDOFF))
    found = savings(seen, waits)
    healthy = np.median(diagnose(recordings.load(f"healthy-{view}")).elapsed)
    for ns in (found.quickack, found.nodelay):
        elapsed = seen.exchanges.elapsed.copy()
        np.subtract.at(elapsed, seen.parts.exchange[waits], ns)
        assert (elapsed >= 0).all()
        assert abs(np.median(elapsed) - healthy) < MS


def test_a_finding_tells_what_its_example_would_take_and_both_views_show_it():
    report = diagnose(recordings.load("standoff-both")).report
    [finding] = report.findings
    assert finding.ladder
    for remedy in finding.remedies:
        assert remedy.typical_ns is not None
        assert 0 <= remedy.typical_ns < MS < finding.ladder.elapsed_ns
    promise = (
        f"one such exchange takes {duration(finding.remedies[0].typical_ns)}"
        f" instead of {duration(finding.ladder.elapsed_ns)}"
    )
    out = io.StringIO()
    Console(file=out, width=200).print(terminal.report_view(report))
    for shown in (out.getvalue(), render(report, title="standoff")):
        assert promise in " ".join(shown.split())


def test_nothing_to_replay_is_nothing():
    seen = diagnose(recordings.load("healthy-both")).attribution
    found = savings(seen, np.zeros(0, np.int64))
    assert isinstance(found, Savings)
    assert all(not len(values) for values in vars(found).values())


@pytest.mark.parametrize("end", ["client", "server"])
def test_an_idle_restart_in_a_capture_is_one_finding_with_the_whole_saving(end):
    """Each of five exchanges after a pause waits twice for its window; the one before them waits in slow start."""
    report = analyze([CORPUS / f"idle-restart.{end}.pcap"]).report
    found = {finding.cause: finding for finding in report.findings}
    assert len(report.findings) == len(found) == 2
    restarted, grown = found[Cause.IDLE_RESTART], found[Cause.SLOW_START]
    assert (restarted.exchanges, grown.exchanges) == (5, 1)
    [remedy] = restarted.remedies
    assert remedy.saves_ns == restarted.lost_ns.total == report.causes[Cause.IDLE_RESTART].ns
    assert restarted.lost_ns.p50 == pytest.approx(80 * MS, abs=2 * MS)  # two round trips
