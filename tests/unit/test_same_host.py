"""Which servers of a host are named, what a bypass of the stack would be worth to them, and why not."""

from __future__ import annotations

import io
from dataclasses import replace
from ipaddress import ip_address

import pytest
from rich.console import Console
from tests import recordings
from tests.unit.dialogue import MSS, a, handshake, q, rows_of

from ackward.diagnosis.diagnose import diagnose, explain
from ackward.diagnosis.traffic import Traffic
from ackward.diagnosis.wire import WireFlow, WireFlows, view
from ackward.model.causes import Cause
from ackward.model.report import Capture, Report
from ackward.model.segments import Endpoint
from ackward.report.terminal import report_view

HERE, THERE = Endpoint(ip_address("::1"), 40000), Endpoint(ip_address("::1"), 8080)


def asked(
    rounds: int, *, size: int = 100, rtt: float = 1.0, client: Endpoint = HERE, server: Endpoint = THERE
) -> Report:
    """A capture at the client: so many requests, each answered after a round trip (milliseconds)."""
    packets = handshake(rtt)
    for number in range(rounds):
        at, sent = 10.0 + 10 * number, 100 * number
        packets += [
            q(at, sent, 100, ack=size * number),
            a(at + rtt, size * number, size, ack=sent + 100),
            q(at + rtt + 0.1, sent + 100, ack=size * (number + 1)),
        ]
    flows, rows = view(WireFlows.of([WireFlow(client, server, MSS)]), rows_of(packets))
    return explain(Traffic.of(flows, rows), Capture(source="dialogue")).report


def test_request_and_response_over_the_loopback_would_profit():
    report = asked(20)
    [service] = report.same_host
    assert (service.server, service.known_by, service.exchanges) == ("[::1]:8080", "loopback", 20)
    assert 0 < service.saves_ns < report.causes[Cause.NETWORK].ns
    assert service.command == "ackward fix bypass --port 8080 --dry-run"
    assert "20 exchanges of 200 B" in service.words
    # What packets do not tell.
    assert "unless a program waits in recv() itself" in service.words
    assert "add --netns" in service.words


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (asked(4), "too few exchanges"),
        (asked(20, size=500_000), "they stream"),
        (asked(20, rtt=5), "a delay between the ends"),
    ],
)
def test_what_would_not_profit_is_told_why(report, reason):
    [service] = report.same_host
    assert reason in service.words
    assert (service.saves_ns, service.command) == (0, None)


def test_other_hosts_are_not_named():
    elsewhere = replace(THERE, address=ip_address("2001:db8::1"))
    assert asked(20, server=elsewhere).same_host == []
    # One address at both ends may be two hosts behind NAT.
    assert asked(20, client=replace(HERE, address=elsewhere.address), server=elsewhere).same_host == []


def test_both_ends_seen_live_are_one_host():
    [service] = diagnose(recordings.load("standoff-both")).report.same_host
    assert service.known_by == "both ends"
    assert "--netns" not in service.words
    for view_ in ("client", "server"):
        assert diagnose(recordings.load(f"standoff-{view_}")).report.same_host == []


def test_the_command_names_the_namespace_of_the_server():
    seen = recordings.load("standoff-both")
    for name, option in (
        ("shop-1", " --netns shop-1"),
        ("pid:4711", " --netns 4711"),
        ("self", ""),
        (None, ""),
    ):
        sockets = tuple(
            one if one.is_client else replace(one, owner=replace(one.owner, netns_name=name))
            for one in seen.sockets
        )
        [service] = diagnose(replace(seen, sockets=sockets)).report.same_host
        assert service.command == f"ackward fix bypass --port 7000{option} --dry-run"


def test_the_terminal_names_them():
    console = Console(file=io.StringIO(), width=100)
    console.print(report_view(asked(20)))
    assert "Within this host:" in console.file.getvalue()
    assert "ackward fix bypass --port 8080 --dry-run" in console.file.getvalue()
