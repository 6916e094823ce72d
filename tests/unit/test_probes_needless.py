"""Probes told needless or needed, the timer's rule, and a peer's way to acknowledge, from packets alone."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.unit.dialogue import CLIENT, MSS, SERVER, a, handshake, q, report_of, rows_of

from ackward.diagnosis.ack_policy import AckPolicy, Likeness, ack_policy, ack_samples
from ackward.diagnosis.probing import Sign, Verdict, probe_timeout_ns, probes
from ackward.diagnosis.traffic import Traffic
from ackward.diagnosis.wire import WireFlow, WireFlows, view
from ackward.model.causes import Cause, End
from ackward.model.segments import Vantage

MS = 1_000_000


def timeline_of(packets):
    flows, rows = view(WireFlows.of([WireFlow(CLIENT, SERVER, MSS)]), rows_of(packets))
    return Traffic.of(flows, rows).timeline(0, 1)


def judged(packets):
    found = probes(timeline_of(packets))
    return [
        (Verdict(verdict), Sign(sign), flight)
        for verdict, sign, flight in zip(found.verdict, found.sign, found.in_flight.tolist(), strict=True)
    ]


def probed(rtt=20, sent=5, answered=None, then=()):
    """Some segments at once; after two round trips and more the last one again; the ACK of all comes to ``answered``."""
    begin, probe = rtt + 1, rtt + 1 + 2 * rtt + 10
    data = [q(begin + n / 100, n * MSS, MSS) for n in range(sent)]
    again = q(probe, (sent - 1) * MSS, MSS)
    last = answered or probe + rtt
    return [
        *handshake(rtt),
        *data,
        again,
        a(last, 0, 0, sent * MSS),
        *(then(last, sent * MSS) if then else ()),
    ]


@pytest.mark.parametrize(
    ("srtt", "in_flight", "rto_left", "expected"),
    [
        (10, 2, 500, 22),  # 2 SRTT + TCP_TIMEOUT_MIN_US
        (10, 1, 500, 220),  # 2 SRTT + rto_min
        (10, 1, 210, 210),  # never later than the retransmission timeout
        (150, 8, 203, 203),
    ],
)
def test_the_timer_follows_the_kernels_rule(srtt, in_flight, rto_left, expected):
    assert probe_timeout_ns(srtt * MS, in_flight, rto_left * MS) == expected * MS


def test_a_dsack_makes_a_probe_spurious():
    packets = probed()
    last = packets[-1]
    told = a(last.at, 0, 0, last.ack, sack=(last.ack - MSS, last.ack))
    assert judged([*packets[:-1], told]) == [(Verdict.SPURIOUS, Sign.DSACK, 5)]


def test_a_dsack_within_the_second_block_makes_it_spurious_too():
    """The third of five segments is lost, and so is the SACK of those behind it: the fifth had arrived all the same."""
    packets = probed(answered=92)
    last = packets[-1]
    told = a(last.at, 0, 0, 2 * MSS, sack=(4 * MSS, 5 * MSS), dsack=True)
    repaired = [q(last.at + 0.1, 2 * MSS, MSS), a(last.at + 20, 0, 0, 5 * MSS)]
    assert judged([*packets[:-1], told, *repaired]) == [(Verdict.SPURIOUS, Sign.DSACK, 5)]


@pytest.mark.parametrize("told", [True, False])
def test_a_fin_may_be_what_is_probed(told):
    """Without a D-SACK it stays open: the peer may have closed meanwhile, and closed ends send none."""
    end = 5 * MSS
    packets = [*handshake(20), *[q(21 + n / 100, n * MSS, MSS) for n in range(5)], q(21.1, end, flags="F")]
    packets += [q(75, end, flags="F"), a(95, 0, 0, end + 1, sack=(end, end + 1) if told else None)]
    verdict = (Verdict.SPURIOUS, Sign.DSACK) if told else (Verdict.UNDECIDED, Sign.NONE)
    assert judged(packets) == [(*verdict, 6)]


def test_an_ack_sooner_than_the_probes_answer_makes_it_spurious():
    assert judged(probed(answered=21 + 40 + 10 + 8)) == [(Verdict.SPURIOUS, Sign.TIMING, 5)]


def test_a_second_ack_of_the_same_makes_it_spurious():
    def again(at, ack):
        return [a(at + 3, 0, 0, ack)]

    assert judged(probed(then=again)) == [(Verdict.SPURIOUS, Sign.SECOND_ACK, 5)]


def test_without_any_sign_a_holding_peer_leaves_it_undecided():
    """Five unacknowledged segments and then all of them at once: whether the last one was lost, nobody can tell."""
    assert judged(probed()) == [(Verdict.UNDECIDED, Sign.NONE, 5)]


def test_a_hole_behind_it_makes_it_useful():
    """Of five segments three are acknowledged, the fourth and the fifth are lost: the probe's answer tells of the hole."""
    packets = [*handshake(20), *[q(21 + n / 100, n * MSS, MSS) for n in range(5)]]
    packets += [a(41, 0, 0, 3 * MSS), q(95, 4 * MSS, MSS)]
    packets += [a(115, 0, 0, 3 * MSS, sack=(4 * MSS, 5 * MSS)), q(115.1, 3 * MSS, MSS), a(135, 0, 0, 5 * MSS)]
    assert judged(packets) == [(Verdict.USEFUL, Sign.HOLE, 2)]


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_delayed_ack_leaves_a_probe_undecided(in_flight):
    """The peer may have had the last segments and may be delaying its ACK: without D-SACKs it answers just the same."""
    packets = [*handshake(20), *[q(21 + n / 100, n * MSS, MSS) for n in range(5)]]
    packets += [a(41, 0, 0, (5 - in_flight) * MSS), q(95, 4 * MSS, MSS), a(115, 0, 0, 5 * MSS)]
    assert judged(packets) == [(Verdict.UNDECIDED, Sign.NONE, in_flight)]


@pytest.mark.parametrize(
    ("probe", "verdict"), [(395, (Verdict.UNDECIDED, Sign.NONE)), (410, (Verdict.USEFUL, Sign.OVERDUE))]
)
def test_a_silence_longer_than_any_delayed_ack_makes_it_useful(probe, verdict):
    """The longest delayed ACK is 200 ms (TCP_DELACK_MAX); here two round trips alone take nearly as long."""
    packets = [*handshake(90), *[q(101 + n / 100, n * MSS, MSS) for n in range(5)]]
    packets += [a(200, 0, 0, 3 * MSS), q(probe, 4 * MSS, MSS), a(probe + 90, 0, 0, 5 * MSS)]
    assert judged(packets) == [(*verdict, 2)]


def test_a_peer_that_sends_dsacks_and_sent_none_makes_it_useful():
    packets = probed()
    last = packets[-1]
    first = a(last.at, 0, 0, last.ack, sack=(last.ack - MSS, last.ack))
    at, seq = last.at + 100, last.ack
    later = [q(at, seq, MSS), q(at + 0.01, seq + MSS, MSS), a(at + 20, 0, 0, seq + MSS)]
    later += [q(at + 75, seq + MSS, MSS), a(at + 95, 0, 0, seq + 2 * MSS)]
    assert judged([*packets[:-1], first, *later])[1] == (Verdict.USEFUL, Sign.NO_DSACK, 1)


def test_new_data_repeats_nothing():
    packets = [*handshake(20), *[q(21 + n / 100, n * MSS, MSS) for n in range(10)]]
    packets += [q(75, 10 * MSS, MSS), a(95, 0, 0, 11 * MSS)]
    assert judged(packets) == [(Verdict.NEW_DATA, Sign.NONE, 10)]


@pytest.mark.parametrize(
    "packets",
    [
        [*handshake(20), q(21, 0, MSS), q(241, 0, MSS), a(261, 0, 0, MSS)],  # a timeout, RFC 6298
        [
            *handshake(20),
            q(21, 0, 50),
            a(41, 0, 0, 50),
            q(10_000, 49, 1),
            a(10_020, 0, 0, 50),
        ],  # a keep-alive
    ],
)
def test_other_repeats_are_no_probes(packets):
    assert judged(packets) == []


def test_the_receiver_alone_sees_that_it_had_it():
    packets = [*handshake(1, "server"), q(2, 0, 100), a(2.1, 0, 0, 100)]
    packets += [q(10 + n / 100, 100 + n * MSS, MSS) for n in range(5)]
    packets += [
        q(22, 100 + 4 * MSS, MSS),
        a(22.1, 0, 100, 100 + 5 * MSS, sack=(100 + 4 * MSS, 100 + 5 * MSS)),
    ]
    found = probes(timeline_of(packets))
    assert Counter(found.verdict.tolist()) == {Verdict.SPURIOUS: 1}
    assert found.vantage.tolist() == [Vantage.CLIENT]


def stream(threshold, timer, bursts, rtt=2.0):
    """Bursts of segments to a peer that acknowledges at a threshold or when a timer fires, as the sender sees it."""
    packets, at, seq, acked = [*handshake(rtt)], 10.0, 0, 0
    for burst in bursts:
        for n in range(burst):
            packets.append(q(at + n / 1000, seq, MSS))
            seq += MSS
            if threshold and seq - acked >= threshold * MSS:
                acked = seq
                packets.append(a(at + n / 1000 + rtt, 0, 0, acked))
        if acked < seq:
            first = at + (burst - (seq - acked) // MSS) / 1000
            packets.append(a(first + timer + rtt, 0, 0, seq))
            acked = seq
        at += timer + 20
    return ack_policy(ack_samples(timeline_of(packets), Vantage.SERVER))


@pytest.mark.parametrize("threshold", [4, 8, 16, 64])
@pytest.mark.parametrize("timer", [25.0, 40.0])
def test_threshold_and_timer_are_estimated(threshold, timer):
    seen = stream(threshold, timer, [threshold * 2 + 3] * 4)
    assert seen.threshold == threshold
    assert seen.timer_ns == pytest.approx(timer * MS, abs=0.2 * MS)
    assert (seen.most_held, seen.holds) == (3, True)
    assert seen.likeness == (Likeness.SURE if threshold == 16 else Likeness.POSSIBLE)


def test_an_unreached_threshold_is_only_bounded():
    seen = stream(16, 40.0, [11, 9, 11])
    assert (seen.threshold, seen.most_held) == (None, 11)
    assert seen.likeness is Likeness.POSSIBLE


def test_every_second_segment_is_no_holding():
    seen = stream(2, 40.0, [9, 9, 9])
    assert not seen.holds
    assert seen.likeness is None
    assert AckPolicy(None, 0, 0, None, 0, 0).likeness is None


def test_the_finding_names_threshold_timer_and_both_settings():
    """Requests of eleven segments to a holding peer; needless probes, told by D-SACK."""
    packets, at, seq = [*handshake(2)], 10.0, 0
    for _ in range(4):
        packets += [q(at + n / 1000, seq + n * MSS, MSS) for n in range(5)]
        seq += 5 * MSS
        packets += [
            q(at + 12, seq - MSS, MSS),
            a(at + 14, 0, 0, seq, sack=(seq - MSS, seq)),
            a(at + 50, 0, 0, seq),
        ]
        at += 100
    report = report_of([*packets, a(at, 0, 100, seq)])
    found = next(finding for finding in report.findings if finding.cause is Cause.TAIL_LOSS_PROBE)
    assert "4, of them 0 with new data, 4 spurious (4 by D-SACK), 0 useful, 0 undecided" in found.why
    advice = {remedy.end: remedy.advice for remedy in found.remedies}
    assert "EF_DYNAMIC_ACK_THRESH=0 AND EF_DELACK_THRESH=0" in advice[End.SERVER]
    assert "Do not lower rto_min below the peer's ACK delay" in advice[End.CLIENT]


def test_what_only_costs_segments_leaves_the_exchange_as_long_as_it_is():
    packets = [*handshake(1, "server")]
    for number in range(4):
        at, asked, sent = 2 + 100 * number, 100 * number, 2 * MSS * number
        packets += [q(at, asked, 100, sent)]
        packets += [a(at + 0.1 + n / 100, sent + n * MSS, MSS, asked + 100) for n in range(2)]
        packets += [q(at + 1.2, asked + 100, 0, sent + MSS), a(at + 7, sent + MSS, MSS, asked + 100)]
        packets += [q(at + 8, asked + 100, 0, sent + 2 * MSS, sack=(sent + MSS, sent + 2 * MSS))]
    [found] = report_of(packets).findings
    assert (found.cause, found.lost_ns.total) == (Cause.TAIL_LOSS_PROBE, 0)
    assert found.ladder
    assert {(remedy.saves_ns, remedy.typical_ns) for remedy in found.remedies} == {
        (0, found.ladder.elapsed_ns)
    }
