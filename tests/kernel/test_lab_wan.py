"""The lab's long link on the real kernel: its delay, and losses that hit what they are meant to hit."""

from __future__ import annotations

import os
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ackward.errors import Unavailable
from ackward.kernel.namespaces import NAMED, command_inside
from ackward.lab import run as lab
from ackward.lab import topology
from ackward.lab.peer import Shape
from ackward.lab.topology import set_sysctls, two_hosts
from ackward.lab.wan import Line, Loss, Wan

QUICK = Shape(nagle=False, pings=1, congestion="reno")


def rounds(hosts, shape: Shape) -> list[float]:
    """Each round's milliseconds, as the client measured them."""
    with lab.server(hosts, shape):
        with lab.peer(hosts.client, "load", hosts.server_address(shape.family), shape) as process:
            output, complaint = process.communicate(timeout=60)
    times = [int(line) / 1e6 for line in output.split()]
    assert len(times) == shape.rounds, complaint
    return times


def kernel_counter(host, name: str) -> int:
    """One of `nstat`'s counters in a host."""
    done = subprocess.run(
        command_inside(host, ["nstat", "-asz", name]), capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(name)]
    return int(line.split()[1])


@pytest.mark.parametrize("family", [4, 6])
def test_a_delay_of_40_ms_each_way_is_kept(family):
    """Both ways together are off by less than twice 0.5 ms in the median, and never early."""
    with two_hosts(Wan.of(40)) as hosts:
        times = rounds(hosts, replace(QUICK, rounds=25, family=family))
    assert min(times) >= 80
    assert statistics.median(times) < 81, times


def test_the_two_directions_have_delays_of_their_own():
    with two_hosts(Wan(Line(30), Line(5))) as hosts:
        times = rounds(hosts, replace(QUICK, rounds=15))
    assert 35 <= statistics.median(times) < 36


def test_a_rate_is_kept():
    """2 Mbit/s carry 50,000 bytes in 200 ms and more; the bucket of 16 kB passes at once."""
    with two_hosts(Wan(Line(5), Line(5, rate=2))) as hosts:
        (time,) = rounds(hosts, replace(QUICK, rounds=1, answer=50_000))
    assert 0.8 * (50_000 - 16_000) * 8 / 2000 < time < 500


def test_a_chosen_segment_is_lost_once_in_every_second_connection():
    loss = Loss("data", at=2 * 1448, every=2)
    shape = replace(QUICK, rounds=6, answer=8 * 1448, reconnect=True, congestion="cubic")
    with two_hosts(Wan(Line(20), Line(20, losses=(loss,)))) as hosts:
        times = rounds(hosts, shape)
        assert kernel_counter(hosts.server, "TcpRetransSegs") == 3
    whole, harmed = times[0::2], times[1::2]
    assert max(whole) < 90  # a handshake and a round trip of 40 ms each
    assert min(harmed) > 115  # and one more to repair the hole


def test_a_segment_and_its_first_retransmission_are_lost():
    loss = Loss("data", times=2)
    with two_hosts(Wan(Line(5), Line(5, losses=(loss,)))) as hosts:
        set_sysctls(hosts.server, {"net.ipv4.tcp_early_retrans": "0"})
        first, second = rounds(hosts, replace(QUICK, rounds=2))
        assert kernel_counter(hosts.server, "TcpExtTCPTimeouts") == 2
    assert first > 600  # the timeout of 200 ms and more, and its double (RFC 6298, section 5.5)
    assert second < 50  # the loss was for the first byte of the connection alone


def test_a_stretch_that_repeats_is_lost_in_every_round():
    loss = Loss("data", at=100, period=200)  # the 2nd, 4th ... answer of 100 bytes
    with two_hosts(Wan(Line(5), Line(5, losses=(loss,)))) as hosts:
        times = rounds(hosts, replace(QUICK, rounds=6))
    assert max(times[0::2]) < 50
    assert min(times[1::2]) > 150


def test_only_the_first_syn_of_a_connection_is_lost():
    with two_hosts(Wan(Line(5, losses=(Loss("syn"),)), Line(5))) as hosts:
        (time,) = rounds(hosts, replace(QUICK, rounds=1, reconnect=True))
        assert kernel_counter(hosts.client, "TcpExtTCPSynRetrans") == 1
    assert 1000 < time < 1500  # RFC 6298, section 2.1: one second


def test_random_loss_is_the_same_in_every_run():
    loss = Loss("any", probability=0.2, seed=4)
    lost = []
    for _ in range(2):
        with two_hosts(Wan(Line(1), Line(1, losses=(loss,)))) as hosts:
            times = rounds(hosts, replace(QUICK, rounds=12))
            lost.append([number for number, time in enumerate(times) if time > 100])
    assert lost[0]
    assert lost[0][0] == lost[1][0]  # after the first loss the order of segments is the timers'


def test_thinned_acks_leave_late_or_as_one_of_sixteen():
    shape = replace(QUICK, rounds=2, sizes=(60_000,), reconnect=True, congestion="cubic")
    with two_hosts(Wan(Line(10), Line(10))) as hosts:
        plain = rounds(hosts, shape)
    with two_hosts(Wan(Line(10), Line(10, thin=16, thin_hold=40))) as hosts:
        thinned = rounds(hosts, shape)
        assert kernel_counter(hosts.client, "TcpExtTCPTimeouts") == 0
    assert min(thinned) > max(plain) + 35


def test_a_link_without_its_packet_queue_says_what_is_missing(monkeypatch):
    """Where iptables is missing, no namespace and no process stays behind."""
    original = topology.run_on

    def without(host, *argv):
        return original(host, "no-such-tables" if "tables" in argv[0] else argv[0], *argv[1:])

    monkeypatch.setattr(topology, "run_on", without)
    with pytest.raises(Unavailable, match=r"no-such-tables.*NFQUEUE"), two_hosts(Wan.of(1)):
        pass
    assert not [path.name for path in NAMED.iterdir() if f"-{os.getpid()}-" in path.name]
    assert not Path(f"/proc/self/task/{os.getpid()}/children").read_text()
