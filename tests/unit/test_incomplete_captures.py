"""Captures that begin after the connections did, or that lack a packet: they never say more than they can know."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ackward.loop.analyzing import analyze
from ackward.model.causes import Cause
from ackward.model.report import Report

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
ETHERNET, SYN = 14, 2


def packets(name: str) -> tuple[bytes, list[bytes]]:
    """The header of a pcap file of the corpus, and its packets with their own."""
    data = (CORPUS / f"{name}.pcap").read_bytes()
    at, found = 24, []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at + 8)
        found.append(data[at : at + 16 + length])
        at += 16 + length
    return data[:24], found


def is_syn(packet: bytes) -> bool:
    tcp = 16 + ETHERNET + (packet[16 + ETHERNET] & 15) * 4
    return bool(packet[tcp + 13] & SYN)


@pytest.fixture
def without(tmp_path: Path) -> Callable[[str, Callable[[int, bytes], bool]], Report]:
    """The report on a capture of the corpus that lacks some of its packets, by number and content."""

    def explain(name: str, lacks: Callable[[int, bytes], bool]) -> Report:
        header, whole = packets(name)
        path = tmp_path / "incomplete.pcap"
        path.write_bytes(header + b"".join(one for number, one in enumerate(whole) if not lacks(number, one)))
        return analyze([path]).report

    return explain


@pytest.mark.parametrize("end", ["client", "server"])
@pytest.mark.parametrize(
    "name", ["standoff", "haproxy", "nagle", "delayed-ack", "slow-start", "congestion-window", "zero-window"]
)
def test_without_syns_the_causes_are_the_same(without, name, end):
    """Windows have no known scale then: taken as they stand, each of them would be too small for anything."""
    whole = analyze([CORPUS / f"{name}.{end}.pcap"]).report
    cut = without(f"{name}.{end}", lambda _, packet: is_syn(packet))
    assert {found.cause for found in cut.findings} == {found.cause for found in whole.findings}
    assert any("without both SYNs" in note for note in cut.capture.notes)
    assert not any("without both SYNs" in note for note in whole.capture.notes)


@pytest.mark.parametrize("name", ["standoff.server", "nagle.client"])
def test_no_missing_packet_hides_the_cause(without, name):
    """An ACK that tcpdump dropped looks like a sender that does not wait for one."""
    [cause] = [found.cause for found in analyze([CORPUS / f"{name}.pcap"]).report.findings]
    _, whole = packets(name)
    for missing in range(3, len(whole)):
        found = {
            finding.cause for finding in without(name, lambda number, _, at=missing: number == at).findings
        }
        assert cause in found, missing
        assert found <= {cause, Cause.TAIL_LOSS_PROBE}, missing
