"""Each cause from packets alone, at either end, and what looks like it and is not."""

from __future__ import annotations

import pytest
from tests.unit.dialogue import MSS, a, handshake, q, report_of, spent

from ackward.model.causes import Cause


def test_handshake_think_time_and_distance():
    packets = [*handshake(20), q(20.1, 0, 100), a(90.1, 0, 100, 100), q(90.2, 100, 0, 100)]
    parts = spent(report_of(packets))
    assert parts == {
        "handshake": pytest.approx(20, abs=0.2),
        "server": pytest.approx(50, abs=0.2),
        "network": pytest.approx(20, abs=0.2),
    }


def test_syn_sent_again_is_a_timeout():
    packets = [
        q(0, flags="S"),
        q(1000, flags="S"),
        a(1020, flags="SA"),
        q(1020.1),
        q(1020.2, 0, 100),
        a(1040.2, 0, 50, 100),
    ]
    parts = spent(report_of(packets))
    assert parts["retransmission-timeout"] == pytest.approx(1000, abs=1)


def test_timeout_seen_by_the_sender():
    packets = [*handshake(20), q(20.1, 0, 100), q(240.1, 0, 100), a(260.1, 0, 100, 100)]
    report = report_of(packets)
    assert spent(report)["retransmission-timeout"] == pytest.approx(220, abs=1)
    assert report.findings[0].cause is Cause.RETRANSMISSION_TIMEOUT


def test_probe_seen_by_the_sender():
    """Five segments, the last is lost; after two round trips it is sent again, and the ACK comes."""
    packets = [*handshake(20), q(20.1, 0, 50), a(40.1, 0, 0, 50)]
    packets += [q(41 + n / 100, 50 + n * MSS, MSS) for n in range(5)]
    packets += [a(61.1, 0, 0, 50 + 4 * MSS), q(105, 50 + 4 * MSS, MSS), a(125, 0, 100, 50 + 5 * MSS)]
    report = report_of(packets)
    assert "tail-loss-probe" in spent(report)
    assert "retransmission-timeout" not in spent(report)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_probe_that_a_dsack_calls_needless_cost_nothing(arrived):
    """The answer's last segment is sent again: the client's ACK says that it had it already, or it does not."""
    packets = [*handshake(1, "server"), q(2, 0, 100)]
    packets += [a(2.1 + n / 100, n * MSS, MSS, 100) for n in range(2)]
    packets += [q(3.2, 100, 0, MSS), a(9, MSS, MSS, 100)]
    packets += [q(10, 100, 0, 2 * MSS, sack=(MSS, 2 * MSS) if arrived else None)]
    assert ("tail-loss-probe" in spent(report_of(packets))) == (not arrived)


def flight_and_late_ack(acked, late):
    """Ten segments at 20 ms; a probe of new data follows as nothing comes; then one ACK, and the rest."""
    packets = [*handshake(20), *[q(20.1 + n / 100, n * MSS, MSS) for n in range(10)]]
    packets += [q(67, 10 * MSS, MSS)] if late else []
    sent, heard = (11 if late else 10), (80.2 if late else 40.2)
    packets += [a(heard, 0, 0, acked * MSS), *[q(heard + 0.1, (sent + n) * MSS, MSS) for n in range(4)]]
    return [*packets, a(heard + 20.3, 0, 100, (sent + 4) * MSS)]


@pytest.mark.parametrize("acked", [9, 10])
def test_ack_holding_is_what_the_ack_took_beyond_a_round_trip(acked):
    """One ACK for ten segments, or for all but one; the round trip itself is the congestion window's."""
    parts = spent(report_of(flight_and_late_ack(acked, late=True)))
    assert parts["ack-holding"] == pytest.approx(40, abs=0.3)
    assert parts["slow-start"] == pytest.approx(20, abs=0.3)


@pytest.mark.parametrize(("acked", "late"), [(10, False), (2, True)])
def test_prompt_acks_and_queues_on_the_path_are_no_ack_holding(acked, late):
    """An ACK for many that comes at once; a late one for the first two, as a queue would make it."""
    assert "ack-holding" not in spent(report_of(flight_and_late_ack(acked, late)))


def bursts(sizes, per_segment):
    """An answer in bursts of full segments, each followed by so many milliseconds a segment, and then a small one."""
    packets, sent, now = [*handshake(0.1, "server"), q(1, 0, 100)], 0, 1.1
    for number, size in enumerate(sizes):
        for _ in range(size):
            packets.append(a(now, sent, MSS, 100))
            sent += MSS
        packets.append(q(now + 0.1, 100, 0, sent))
        now += size * per_segment[number]
    return [*packets, a(now, sent, 300, 100)]


def test_pacing_waits_as_long_as_each_burst_was_large():
    assert spent(report_of(bursts((5, 10, 2, 10), [1] * 4)))["pacing"] == pytest.approx(27, abs=0.1)


def test_uneven_bursts_are_not_paced():
    assert "pacing" not in spent(report_of(bursts((5, 10, 2, 10), [1, 3, 2, 0.7])))


def through_a_slow_link(end):
    """Sixty segments over 1 ms of path and a link that takes 3 ms for each; the first ten find it rested."""
    half, rested, each = 0.5, 10, 3
    packets, heard = [*handshake(2 * half, end), q(10, 0, 100)], []
    arrives, leaves = 10 + 2 * half, []
    for number in range(60):
        leaves.append(10.2 if number < rested else heard[number - rested] + 0.01)
        arrives = leaves[-1] + half if number < rested else max(leaves[-1] + half, arrives + each)
        heard.append(arrives + half)
        at = (leaves[-1] if end == "server" else arrives) + number / 1000
        packets.append(a(at, number * MSS, MSS, 100))
        packets.append(q((heard[-1] if end == "server" else arrives) + 0.005, 100, 0, (number + 1) * MSS))
    return packets


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_slow_link_is_neither_pacing_nor_a_full_window(end):
    parts = spent(report_of(through_a_slow_link(end)))
    assert parts.get("pacing", 0) + parts.get("congestion-window", 0) + parts.get("slow-start", 0) < 5
    assert parts.get("network", 0) + parts.get("unknown", 0) > 100


def test_a_syn_that_the_servers_host_ignored():
    packets = [q(0, flags="S"), q(1000, flags="S"), a(1000.05, flags="SA"), q(1020), q(1020.1, 0, 100)]
    packets += [a(1020.2, 0, 100, 100)]
    assert spent(report_of(packets))["accept-queue"] == pytest.approx(1000, abs=0.1)


def test_fast_retransmit_seen_by_the_sender():
    packets = [*handshake(20), *[q(20.1 + n / 100, n * MSS, MSS) for n in range(6)]]
    packets += [a(40 + n, 0, 0, MSS, sack=(2 * MSS, (3 + n) * MSS)) for n in range(4)]
    packets += [q(43.2, MSS, MSS), a(63.2, 0, 100, 6 * MSS)]
    parts = spent(report_of(packets))
    assert parts["fast-retransmit"] == pytest.approx(23.1, abs=0.5)


def test_fast_retransmit_seen_by_the_receiver():
    """The capture is at the client; the server's second segment never came, and came again a round trip later."""
    packets = [*handshake(20), q(20.1, 0, 100), a(45, 0, MSS, 100), q(45.02, 100, 0, MSS)]
    packets += [a(45.1 + n / 10, (2 + n) * MSS, MSS, 100) for n in range(3)]
    packets += [q(45.12 + n / 10, 100, 0, MSS, sack=(2 * MSS, (3 + n) * MSS)) for n in range(3)]
    packets += [a(66, MSS, MSS, 100), q(66.02, 100, 0, 5 * MSS)]
    assert spent(report_of(packets))["fast-retransmit"] == pytest.approx(20.9, abs=0.3)


def test_reordering_is_no_loss():
    packets = [*handshake(20), q(20.1, 0, 100), a(45, 0, MSS, 100), a(45.1, 2 * MSS, MSS, 100)]
    packets += [
        q(45.11, 100, 0, MSS, sack=(2 * MSS, 3 * MSS)),
        a(45.2, MSS, MSS, 100),
        q(45.21, 100, 0, 3 * MSS),
    ]
    assert "fast-retransmit" not in spent(report_of(packets))


def test_keepalives_are_nothing():
    packets = [
        *handshake(20),
        q(20.1, 0, 100),
        a(40.1, 0, 100, 100),
        q(7540, 99, 1, 100),
        a(7560, 100, 0, 100),
    ]
    report = report_of(packets)
    assert report.exchanges == 1
    assert set(spent(report)) == {"handshake", "network"}


@pytest.mark.parametrize("end", ["client", "server"])
def test_slow_start_of_a_download(end):
    """Flights of 10, 20 and 40 segments at 80 ms; the client's ACK of each lets the next go."""
    packets, sent, first = handshake(80, end), 0, 100.0
    packets.append(q(first, 0, 100))
    half = 80 if end == "client" else 0
    for flight, count in enumerate((10, 20, 40)):
        begin = first + half + flight * 80 + (0.3 if end == "server" else 0)
        for n in range(count):
            packets.append(a(begin + n * 0.05, sent, MSS, 100))
            sent += MSS
            acked_at = begin + n * 0.05 + (0.02 if end == "client" else 79.9)
            packets.append(q(acked_at, 100, 0, sent))
    parts = spent(report_of(packets))
    assert parts["slow-start"] == pytest.approx(158, abs=6)
    assert "server" not in parts or parts["server"] < 5


def test_a_closed_receive_window_seen_by_the_sender():
    packets = [*handshake(20, window=3 * MSS), q(20.1, 0, 50)]
    packets += [a(40.1, 0, 0, 50, window=3 * MSS), *[q(41 + n / 100, 50 + n * MSS, MSS) for n in range(3)]]
    packets += [a(61, 0, 0, 50 + 3 * MSS, window=0), a(261, 0, 0, 50 + 3 * MSS, window=1 << 20)]
    packets += [q(261.1, 50 + 3 * MSS, MSS), a(281.1, 0, 100, 50 + 4 * MSS)]
    assert spent(report_of(packets))["receive-window"] == pytest.approx(220, abs=2)


def standoffs(hold_until_ack, rounds=8):
    """Requests in two small pieces; the server's ACK takes 40 ms; the second piece waits for it, or not."""
    packets, sent, got, now = handshake(1), 0, 0, 10.0
    for _ in range(rounds):
        second = now + (41.1 if hold_until_ack else 40.0)
        packets.append(q(now, sent, 100, got))
        packets.append(q(second, sent + 100, 200, got))
        packets.append(
            a(now + 41, got, 0, sent + 100) if hold_until_ack else a(second + 0.9, got, 0, sent + 300)
        )
        packets.append(a(second + 1.2, got, 100, sent + 300))
        sent, got, now = sent + 300, got + 100, second + 10
    return packets


def test_standoff_is_inferred_from_its_rhythm():
    report = report_of(standoffs(hold_until_ack=True))
    assert report.findings[0].cause is Cause.STANDOFF
    assert report.findings[0].exchanges == 8


def test_a_late_writer_is_no_standoff():
    report = report_of(standoffs(hold_until_ack=False))
    assert report.findings == []
    assert spent(report)["client"] == pytest.approx(8 * 40, abs=10)


def test_a_client_that_connects_and_waits_is_seen_from_the_server_too():
    """The ACK that confirms the SYN-ACK tells the server's end when the client could have asked."""
    report = report_of(
        [*handshake(20, at="server"), q(500, 0, 100), a(500.01, 0, 100, 100), q(500.2, 100, 0, 100)]
    )
    assert spent(report)["client"] == pytest.approx(480, abs=1)
