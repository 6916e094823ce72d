"""The ACK model: the laws of its module on any settings, and the behaviour that FACTS measured on a kernel."""

from __future__ import annotations

import json
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ackward.cli.main import run
from ackward.cli.predict import app
from ackward.errors import UsageError
from ackward.model.causes import Cause, End
from ackward.model.prediction import AckPrediction, AckSettings
from ackward.predict.acks import predict
from ackward.predict.exchange import Exchange, Until
from ackward.predict.timers import expiry
from ackward.report.prediction_ladder import picture

MS = 1_000_000
ONE_WAY = {"writes": (8 * 1448,), "answer": ()}

ANY = st.builds(
    AckSettings,
    rtt_ns=st.integers(1_000, 300 * MS),
    delack_ns=st.integers(0, 200 * MS),
    threshold=st.sampled_from([0, 1, 2, 4, 16, 64]),
    writes=st.lists(st.integers(1, 9_000), min_size=1, max_size=4).map(tuple),
    answer=st.lists(st.integers(1, 9_000), max_size=3).map(tuple),
    nagle=st.booleans(),
    server_nagle=st.booleans(),
    quickack=st.booleans(),
    quick=st.integers(0, 16),
    pingpong_threshold=st.integers(1, 4),
    tlp=st.booleans(),
    rto_min_ns=st.integers(MS, 300 * MS),
    cwnd=st.integers(1, 12),
    think_ns=st.sampled_from([0, MS, 100 * MS]),
    rest_ns=st.sampled_from([0, MS, 500 * MS]),
    rounds=st.integers(1, 5),
    tick_ns=st.sampled_from([0, MS, 4 * MS, 10 * MS]),
)


def times(prediction: AckPrediction) -> list[float]:
    return [each.elapsed_ns / MS for each in prediction.rounds]


@given(ANY)
@settings(max_examples=150, deadline=None)
def test_time_is_causal_and_no_segment_is_acknowledged_before_it_arrived(given_settings):
    logs = Exchange(given_settings).run()
    flights = [flight for log in logs for flight in log.flights]
    assert all(before.at <= after.at for before, after in pairwise(flights))
    for flight in flights:
        arrived = [
            other.data.end
            for other in flights
            if other.data and other.sender is not flight.sender and other.arrives <= flight.at
        ]
        assert flight.arrives > flight.at
        assert flight.ack <= max(arrived, default=0)


@given(ANY)
@settings(max_examples=150, deadline=None)
def test_an_ack_waits_once_and_one_timer_at_most_ends_it(given_settings):
    logs = Exchange(given_settings).run()
    for end in End:
        delays = [delay for log in logs for delay in log.delays if delay.end is end]
        assert all(before.stop <= after.start for before, after in pairwise(delays))
        fired = [
            step.at_ns
            for log in logs
            for step in log.steps
            if step.kind == "ack-timer" and step.sender is end
        ]
        ended = [delay.stop for delay in delays if delay.until is Until.TIMER]
        # A timer without any delay may only be one of 0 ns.
        assert fired == ended or given_settings.delack_ns == 0
        if end is End.SERVER:
            tick = given_settings.tick_ns
            # The timer wheel is coarse for long delays: how long one takes depends on the tick it begins at.
            armed = [number * tick for number in range(64)]
            longest = max(expiry(at, given_settings.delack_ns, tick) - at for at in armed)
            assert all(delay.stop - delay.start <= longest for delay in delays)


@given(ANY)
@settings(max_examples=150, deadline=None)
def test_the_parts_add_up_and_none_is_unknown(given_settings):
    prediction = predict(given_settings)  # its model refuses parts that do not add up
    assert Cause.UNKNOWN not in prediction.causes
    assert prediction.elapsed_ns >= given_settings.rounds * given_settings.rtt_ns // 2
    assert AckPrediction.model_validate_json(prediction.to_json()) == prediction


@given(ANY, st.booleans())
@settings(max_examples=100, deadline=None)
def test_without_nagle_an_ack_for_each_segment_leaves_nothing_but_the_round_trip(given_settings, tlp):
    calm = given_settings.model_copy(
        update={
            "nagle": False,
            "server_nagle": False,
            "threshold": 1,
            "cwnd": 1_000,
            "tlp": tlp,
            "think_ns": 0,
            "rest_ns": 0,
        }
    )
    prediction = predict(calm)
    assert {each.elapsed_ns for each in prediction.rounds} == {calm.rtt_ns}
    assert not prediction.waits
    assert "nothing waits" in prediction.verdict[0]


@given(ANY, st.integers(1, 50 * MS))
@settings(max_examples=150, deadline=None)
def test_a_longer_round_trip_never_makes_exact_timers_faster(given_settings, more):
    exact = given_settings.model_copy(update={"tick_ns": 0, "rest_ns": 0, "think_ns": 0})
    near, far = (
        predict(exact.model_copy(update={"rtt_ns": rtt})) for rtt in (exact.rtt_ns, exact.rtt_ns + more)
    )
    assume(not any(each.probes or each.timeouts for each in (near, far)))
    # Data that is answered more slowly than the delayed-ACK time does not make a connection interactive.
    assume(not exact.answer or far.settings.rtt_ns < exact.delack_ns)
    # After a gap longer than its RTO a receiver acknowledges at once (tcp_event_data_recv): a longer way can bring that.
    assume(2 * far.settings.rtt_ns + exact.delack_ns < exact.rto_min_ns)
    assert near.elapsed_ns <= far.elapsed_ns


@pytest.mark.parametrize(("threshold", "slow"), [(1, 59), (2, 29), (3, 19)])
def test_pingpong_threshold_decides_how_many_rounds_stand_off_as_measured(threshold, slow):
    prediction = predict(AckSettings(rtt_ns=20_000, rounds=60, pingpong_threshold=threshold))
    assert sum(each > 30 for each in times(prediction)) == slow


def test_the_standoff_in_words():
    prediction = predict(AckSettings(rtt_ns=200_000))
    assert prediction.p50_ns == 44 * MS
    assert max(prediction.causes, key=prediction.causes.__getitem__) == Cause.STANDOFF
    assert "Nagle" in prediction.verdict[0]
    assert "delayed-ACK timer" in prediction.verdict[0]
    assert {each.name: each.p50_ns for each in prediction.alternatives} == {
        "nodelay": 200_000,
        "one write": 200_000,
        "quickack": 400_000,
        "delack": 12 * MS,
    }


def test_a_receiver_that_holds_acks_meets_probes_until_srtt_has_grown():
    prediction = predict(AckSettings(rtt_ns=200_000, threshold=16, rounds=20, **ONE_WAY))
    spurious = [each.spurious_probes for each in prediction.rounds]
    assert spurious[0] == 1
    assert spurious[-1] == 0
    assert sorted(spurious, reverse=True) == spurious
    assert set(prediction.causes) == {Cause.ACK_HOLDING, Cause.NETWORK}
    assert any("spurious" in step.note for step in prediction.ladder.steps)
    cured = {each.name: each.spurious_probes for each in prediction.alternatives}
    assert cured["threshold 1"] == cured["threshold 0"] == cured["no probes"] == 0


@pytest.mark.parametrize(("rto_min", "spurious"), [(200, 0), (44, 0), (5, 19)])
def test_rto_min_below_the_ack_delay_makes_the_probe_of_one_segment_spurious(rto_min, spurious):
    """The reverse trap: one segment, answered after 30 ms, its ACK delayed by 40 ms."""
    prediction = predict(
        AckSettings(rtt_ns=30_000, rto_min_ns=rto_min * MS, writes=(100,), think_ns=30 * MS, rounds=20)
    )
    assert prediction.spurious_probes == spurious
    assert any(sentence.startswith("Trap") for sentence in prediction.verdict) == (spurious > 0)


@pytest.mark.parametrize(
    ("changed", "warned"), [({"threshold": 1}, 0), ({"quickack": True}, 0), ({"threshold": 2}, 1)]
)
def test_the_trap_needs_an_ack_that_waits(changed, warned):
    prediction = predict(AckSettings(rtt_ns=30_000, rto_min_ns=5 * MS, writes=(100,), **changed))
    assert sum(sentence.startswith("Trap") for sentence in prediction.verdict) == warned


def test_a_timer_fires_on_a_tick_and_never_early():
    assert expiry(0, 40 * MS, 4 * MS) == 44 * MS
    assert expiry(4 * MS - 1, 40 * MS, 4 * MS) == 44 * MS
    assert expiry(4 * MS, 41 * MS, 4 * MS) == 52 * MS
    assert expiry(0, 256 * MS, 4 * MS) == 288 * MS  # 64 jiffies are of the wheel's second level


def test_long_times_are_told_as_people_read_them():
    said = " ".join(predict(AckSettings(rtt_ns=20_000 * MS)).verdict)
    assert said.startswith("Each request takes 40.0 s in the median, 20.0 s of it standoff")
    assert "e+0" not in said
    probed = AckSettings(rtt_ns=30_000, rto_min_ns=5 * MS, writes=(100,), think_ns=30 * MS, rounds=20)
    assert "2 SRTT + rto_min (8.06 ms) with one" in " ".join(predict(probed).verdict)


def test_the_command_says_json_text_and_picture(tmp_path, capfd):
    target = tmp_path / "ladder.svg"
    assert run(["predict", "acks", "--rtt", "0.2ms", "--ladder", str(target)]) == 0
    assert "standoff" in capfd.readouterr().out
    svg = ET.parse(target).getroot()
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert picture(predict(AckSettings(rtt_ns=200_000))) == target.read_text()
    assert run(["predict", "acks", "--rtt", "0.2ms", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["p50_ns"] == 44 * MS


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rtt", "0ms"],
        ["--rtt", "soon"],
        ["--rtt", "1ms", "--threshold", "65536"],
        ["--rtt", "1ms", "--writes", "0"],
        ["--rtt", "1ms", "--writes", "1,x"],
        ["--rtt", "1ms", "--writes", "1", "--inflight", "1"],
        ["--rtt", "1ms", "--inflight", "4000", "--rounds", "1000"],
        ["--rtt", "1ms", "--nagle", "perhaps"],
        ["--rtt", "1ms", "--hz", "7"],
        ["--rtt", "1ms", "--ladder", "x.png"],
    ],
)
def test_bad_input_is_a_usage_error_that_names_the_next_step(arguments):
    outcome = CliRunner().invoke(app, ["acks", *arguments])
    assert isinstance(outcome.exception, UsageError)
    assert outcome.exception.next_step
