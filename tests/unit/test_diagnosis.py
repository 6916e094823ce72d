"""What the diagnosis says of real recordings: the stall where there is one, and nothing where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests import recordings

from ackward.diagnosis.diagnose import diagnose
from ackward.diagnosis.exchanges import cut
from ackward.diagnosis.flows import join
from ackward.model.causes import Cause, End, Grade
from ackward.model.segments import FastExchanges, Kind, Nonagle, Vantage


@pytest.mark.parametrize("view", recordings.VIEWS)
@pytest.mark.parametrize("recipe", ["standoff", "standoff-ipv6"])
def test_standoff_is_observed_from_every_side(recipe, view):
    recording = recordings.load(f"{recipe}-{view}")
    report = diagnose(recording).report
    [finding] = report.findings
    assert (finding.cause, finding.grade) == (Cause.STANDOFF, Grade.OBSERVED)
    assert (finding.holding_end, finding.delaying_end) == (End.CLIENT, End.SERVER)
    assert finding.exchanges == report.exchanges - 1  # the first rounds are in quick-ACK mode
    assert report.causes[Cause.STANDOFF].ns >= 0.95 * report.elapsed_ns
    assert 35e6 < finding.lost_ns.p50 < 50e6
    names = {remedy.name: remedy for remedy in finding.remedies}
    assert names["quickack"].end is End.SERVER
    assert "--port 7000" in (names["quickack"].command or "")
    assert names["nodelay"].end is End.CLIENT
    assert finding.remedies[0].command  # what can be done now comes first
    assert finding.ladder
    [stall] = finding.ladder.stalls
    assert stall.end_ns - stall.start_ns > 0.95 * finding.ladder.elapsed_ns


@pytest.mark.parametrize("view", recordings.VIEWS)
@pytest.mark.parametrize(
    ("recipe", "cause"), [("healthy", None), ("slow-server", Cause.SERVER), ("late-writer", Cause.CLIENT)]
)
def test_controls_have_no_finding(recipe, cause, view):
    report = diagnose(recordings.load(f"{recipe}-{view}")).report
    assert report.findings == []
    assert not {Cause.STANDOFF, Cause.NAGLE, Cause.DELAYED_ACK} & set(report.causes)
    if cause:
        assert report.causes[cause].ns >= 0.95 * report.elapsed_ns


def test_both_views_give_the_same_time_lost():
    """The client's own clock says what was lost; the server's estimate must not be far from it."""
    lost = {
        view: diagnose(recordings.load(f"standoff-{view}")).report.findings[0].lost_ns.p50
        for view in recordings.VIEWS
    }
    assert (
        max(lost.values()) - min(lost.values()) < 5e6
    )  # separate runs: the timer's jiffies differ by up to 4 ms


def test_server_view_is_flagged_as_estimated():
    assert cut(*join(recordings.load("standoff-server"))).estimated.all()
    assert not cut(*join(recordings.load("standoff-both"))).estimated.any()


def without(recording, kind):
    return replace(recording, segments=recording.segments[recording.segments["kind"] != kind])


def test_a_hold_needs_the_kernel_to_say_that_the_write_was_held():
    """Take the held writes away from the client's view: nothing may be called a standoff."""
    report = diagnose(without(recordings.load("standoff-client"), Kind.WRITE_HELD)).report
    assert Cause.STANDOFF not in report.causes


def test_a_late_ack_whose_timer_nobody_saw_is_inferred_as_in_a_capture():
    """Take the fired timers away from the server's view, as a kernel does that hides them: the same, but inferred."""
    recording = recordings.load("standoff-server")
    [told] = diagnose(recording).report.findings
    [found] = diagnose(without(recording, Kind.ACK_TIMER)).report.findings
    assert (told.grade, found.grade) == (Grade.OBSERVED, Grade.INFERRED)
    assert (found.cause, found.exchanges, found.lost_ns) == (told.cause, told.exchanges, told.lost_ns)


def test_without_late_acks_nothing_is_delayed():
    """Take the ACKs away, too: data that came late is no delayed ACK."""
    recording = without(recordings.load("standoff-server"), Kind.ACK_TIMER)
    bare = (recording.segments["kind"] == Kind.SENT) & (recording.segments["bytes"] == 0)
    report = diagnose(replace(recording, segments=recording.segments[~bare])).report
    assert not {Cause.STANDOFF, Cause.DELAYED_ACK} & set(report.causes)


def test_a_fired_timer_that_nobody_waited_for_delays_nothing():
    """The late writer's server fires its timer too (40 ms of silence), and its client did not wait for it."""
    recording = recordings.load("late-writer-server")
    assert (recording.segments["kind"] == Kind.ACK_TIMER).any()
    assert Cause.STANDOFF not in diagnose(recording).report.causes


def test_a_timer_whose_ack_left_with_data_delays_nothing():
    """An ACK that carries an answer was not waited for by Nagle's algorithm."""
    recording = recordings.load("standoff-server")
    segments = recording.segments.copy()
    order = np.argsort(segments["time_ns"])
    fired = np.isin(segments["kind"][order], [Kind.ACK_TIMER])
    segments["bytes"][order[1:][fired[:-1]]] = 100  # the segment after each timer now carries data
    report = diagnose(replace(recording, segments=segments)).report
    assert Cause.STANDOFF not in report.causes


def test_a_program_with_nodelay_is_never_held_by_nagle():
    recording = recordings.load("standoff-client")
    segments = recording.segments.copy()
    segments["nonagle"] |= np.uint8(Nonagle.OFF)
    report = diagnose(replace(recording, segments=segments)).report
    assert not {Cause.STANDOFF, Cause.NAGLE} & set(report.causes)


def test_an_ack_that_comes_at_once_makes_it_nagle_not_standoff():
    """Squeeze the ACK's 40 ms out of the client's view: what remains is one round trip of Nagle."""
    recording = recordings.load("standoff-client")
    segments = recording.segments[np.argsort(recording.segments["time_ns"])].copy()
    times = segments["time_ns"]
    gaps = np.diff(times)
    gaps[gaps > 30_000_000] = 200_000
    segments["time_ns"] = times[0] + np.concatenate(([0], np.cumsum(gaps)))
    report = diagnose(replace(recording, segments=segments)).report
    assert Cause.NAGLE in report.causes
    assert Cause.STANDOFF not in report.causes


def test_fast_exchanges_are_counted_once():
    """Both ends counted the same exchanges: the client's count decides, and the parts add up."""
    recording = recordings.load("healthy-both")
    fast = FastExchanges(count=10, request_ns=1000, wait_ns=500_000, response_ns=300)
    sockets = tuple(replace(socket, fast=fast) for socket in recording.sockets)
    plain, counted = diagnose(recording), diagnose(replace(recording, sockets=sockets))
    assert counted.report.exchanges == plain.report.exchanges + 10
    assert counted.report.elapsed_ns == plain.report.elapsed_ns + 501_300
    assert len(counted.elapsed) == counted.report.exchanges


def test_equal_addresses_in_two_namespaces_are_not_mixed_up():
    """Two pods with the same addresses: ends are paired by the bytes that they saw."""
    one, two = recordings.load("standoff-both"), recordings.load("healthy-both")
    other = two.segments.copy()
    other["flow"] += 10
    names = {socket.is_client: socket for socket in one.sockets}
    sockets = tuple(
        replace(
            socket,
            flow=socket.flow + 10,
            local=names[socket.is_client].local,
            remote=names[socket.is_client].remote,
        )
        for socket in two.sockets
    )
    mixed = replace(one, segments=np.concatenate((one.segments, other)), sockets=one.sockets + sockets)
    flows, _ = join(mixed)
    assert len(flows) == 2
    assert {flow.client_end.flow for flow in flows if flow.client_end and flow.server_end} == {
        socket.flow for socket in mixed.sockets if socket.is_client
    }


def test_shed_flows_are_left_out_whole():
    recording = recordings.load("standoff-both")
    one_end_shed = tuple(replace(socket, shed=socket.is_client) for socket in recording.sockets)
    report = diagnose(replace(recording, sockets=one_end_shed)).report
    assert (report.exchanges, report.elapsed_ns, report.findings) == (0, 0, [])


def test_nothing_recorded_is_a_report_too():
    recording = recordings.load("standoff-both")
    report = diagnose(replace(recording, segments=recording.segments[:0], sockets=())).report
    assert (report.exchanges, report.causes, report.findings) == (0, {}, [])


def test_pipelined_requests_are_one_exchange():
    """A request that goes out while an answer is outstanding does not begin a new exchange."""
    recording = recordings.load("healthy-client")
    segments = recording.segments.copy()
    sent = (segments["kind"] == Kind.SENT) & (segments["bytes"] > 0)
    segments["snd_una"][sent] = segments["seq"][sent] - 1  # something is always unacknowledged
    line = cut(*join(replace(recording, segments=segments)))
    assert line.count == 1
    assert cut(*join(recording)).count == 40


def test_vantage_points_are_told_apart():
    _, segments = join(recordings.load("healthy-both"))
    for vantage in (Vantage.CLIENT, Vantage.SERVER):
        rows = segments[segments["vantage"] == vantage]
        data = rows[(rows["kind"] == Kind.SENT) & (rows["bytes"] > 0)]
        assert (data["to_server"] == (vantage == Vantage.CLIENT)).all()


@pytest.mark.parametrize(("view", "there"), [("client", True), ("server", False), ("both", False)])
def test_a_remedy_for_an_end_that_was_not_watched_says_where_it_belongs(view, there):
    """The command without a namespace would change this host, where nothing hurts."""
    [found] = diagnose(recordings.load(f"standoff-{view}")).report.findings
    remedy = next(remedy for remedy in found.remedies if remedy.name == "quickack")
    assert ("that end was not watched" in (remedy.advice or "")) is there
    assert remedy.command.startswith("ackward fix quickack --port 7000")
