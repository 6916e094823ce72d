"""Packets alone: what a capture at one host shows agrees with what that host's kernel told."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from tests import recordings
from tests.unit import packets
from tests.unit.capture_files import pcapng
from tests.unit.dialogue import CLIENT, SERVER, a, handshake, q, rows_of
from tests.unit.packets import option

from ackward.capture.reading import read_captures
from ackward.capture.sources import find
from ackward.diagnosis.diagnose import diagnose, explain
from ackward.diagnosis.flows import join
from ackward.diagnosis.traffic import Traffic
from ackward.diagnosis.wire import WireFlow, WireFlows, view
from ackward.loop.analyzing import analyze
from ackward.model.causes import Cause, End, Grade
from ackward.model.report import Capture
from ackward.model.segments import WIRE_FIELDS, WIRE_SEGMENT, Flag, Kind, Passage


def as_capture(recording):
    """What tcpdump on the watched host would have kept: its segments, without any state."""
    flows, rows = join(recording)
    rows = rows[np.isin(rows["kind"], (Kind.SENT, Kind.RECEIVED))]
    wire = np.zeros(len(rows), WIRE_SEGMENT)
    for name, _ in WIRE_FIELDS:
        wire[name] = rows[name]
    wire["window"] = 1 << 20
    known = [WireFlow(flow.client, flow.server, 1448) for flow in flows]
    return view(WireFlows.of(known), wire)


def diagnosis(name):
    return explain(Traffic.of(*as_capture(recordings.load(name))), Capture(source=name)).report


@pytest.mark.parametrize("view", ["client", "server"])
@pytest.mark.parametrize("recipe", ["standoff", "standoff-ipv6"])
def test_live_and_captured_views_agree(recipe, view):
    """Cause, count and lost time: to 1 ms or 2 %."""
    live = diagnose(recordings.load(f"{recipe}-{view}")).report
    captured = diagnosis(f"{recipe}-{view}")
    [told], [shown] = live.findings, captured.findings
    assert (shown.cause, shown.grade) == (Cause.STANDOFF, Grade.INFERRED)
    assert (shown.holding_end, shown.delaying_end) == (End.CLIENT, End.SERVER)
    assert shown.exchanges == told.exchanges
    assert captured.exchanges == live.exchanges
    assert abs(shown.lost_ns.total - told.lost_ns.total) <= max(
        1e6 * told.exchanges, 0.02 * told.lost_ns.total
    )


@pytest.mark.parametrize("view", ["client", "server"])
@pytest.mark.parametrize(
    ("recipe", "cause"), [("healthy", None), ("slow-server", Cause.SERVER), ("late-writer", Cause.CLIENT)]
)
def test_controls_stay_controls(recipe, cause, view):
    report = diagnosis(f"{recipe}-{view}")
    assert report.findings == []
    if cause:
        assert report.causes[cause].ns > 0.9 * report.elapsed_ns


@pytest.mark.parametrize("view", ["client", "server"])
@pytest.mark.parametrize("recipe", sorted(recordings.RECIPES))
def test_the_vantage_point_is_worked_out(recipe, view):
    """On a path of 10 us the two halves of a round trip are hardly apart.

    Then it may say "between", never the wrong end.
    """
    [flow], _ = as_capture(recordings.load(f"{recipe}-{view}"))
    assert flow.seen_from in (view, "between")


@pytest.mark.parametrize("view", ["client", "server"])
def test_the_vantage_point_is_plain_on_a_real_path(view):
    """The same recording with 10 ms of path between the hosts."""
    recording = recordings.load(f"standoff-{view}")
    rows = recording.segments.copy()
    order = np.argsort(rows["time_ns"])
    rows = rows[order]
    # Whatever arrives, arrives 10 ms later, and so does all that follows it.
    rows["time_ns"] += np.cumsum(np.where(rows["kind"] == Kind.RECEIVED, 10_000_000, 0))
    [flow], _ = as_capture(replace(recording, segments=rows))
    assert flow.seen_from == view
    assert flow.min_rtt_ns > 9_000_000


def place(request, answer):
    """Where a capture is taken to stand whose SYNs have this passage, on a path that is too short to tell by time."""
    rows = rows_of([*handshake(0.02), q(0.1, 0, 100), a(0.15, 0, 100, 100), q(0.2, 100, 0, 100)])
    syn = rows["tcp_flags"] & Flag.SYN > 0
    rows["time_ns"] = np.arange(len(rows)) * 10_000
    rows["passage"] = np.where(syn, np.where(rows["to_server"], request, answer), 0)
    [flow], _ = view(WireFlows.of([WireFlow(CLIENT, SERVER)]), rows)
    return flow.seen_from


@pytest.mark.parametrize(
    ("request_passage", "answer_passage", "end"),
    [
        (Passage.LEFT, Passage.ARRIVED, "client"),
        (Passage.ARRIVED, Passage.LEFT, "server"),
        (Passage.LEFT | Passage.ARRIVED, Passage.LEFT | Passage.ARRIVED, "between"),  # forwarded
        (Passage.UNSUMMED, 0, "client"),
        (0, Passage.UNSUMMED, "server"),
        (Passage.UNSUMMED, Passage.UNSUMMED, "between"),  # a link within one machine
        (0, 0, "between"),
    ],
)
def test_the_passage_of_packets_tells_the_vantage_point(request_passage, answer_passage, end):
    assert place(request_passage, answer_passage) == end


def test_the_smallest_halves_of_all_flows_between_two_hosts_count():
    """The second flow's own are 10 ms each; the first one's say that the capture stands at the client."""
    far, near = rows_of(handshake(20)), rows_of(handshake(0.02))
    near["time_ns"] = np.arange(len(near)) * 10_000_000
    near["flow"] = 1
    flows, _ = view(WireFlows.of([WireFlow(CLIENT, SERVER)] * 2), np.concatenate((far, near)))
    assert [flow.seen_from for flow in flows] == ["client", "client"]


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_cooked_capture_of_a_real_host_tells_its_end(end):
    capture = read_captures(find([recordings.DIRECTORY.parent / "corpus" / f"accept-queue-any.{end}.pcap"]))
    ours = capture.segments["to_server"] == (end == "client")
    assert (capture.segments["passage"] & (Passage.LEFT | Passage.ARRIVED) == np.where(ours, 1, 2)).all()
    # A veth pair computes no checksum.
    syn = capture.segments["tcp_flags"] & Flag.SYN > 0
    assert (capture.segments["passage"] & Passage.UNSUMMED > 0).tolist() == syn.tolist()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("comment", [b"", b"two bytes over"])
@pytest.mark.parametrize("end", ["client", "server"])
def test_the_direction_in_a_pcapng_file_tells_the_end(order, comment, end, tmp_path):
    """Section 4.3 of the format: the lowest two bits of epb_flags are 1 for inbound and 2 for outbound packets."""

    def options(frame):
        ours = (frame[26:30] == CLIENT.address.packed) == (end == "client")
        flags = option(2, struct.pack(order + "I", 0x100 | (2 if ours else 1)), order)
        return (option(1, comment, order) if comment else b"") + flags + option(0, b"", order)

    path = tmp_path / "told.pcapng"
    path.write_bytes(pcapng(handshake(0.01), order, options=options))
    capture = read_captures(find([path]))
    ours = capture.segments["to_server"] == (end == "client")
    directions = capture.segments["passage"] & (Passage.LEFT | Passage.ARRIVED)
    assert directions.tolist() == np.where(ours, Passage.LEFT, Passage.ARRIVED).tolist()
    assert f"captured at the {end}: 1 of 1 flow" in analyze([path]).report.capture.notes


@pytest.mark.parametrize("options", [b"\x02\x00\x04\x00", b"\x02\x00\x02\x00\x01\x00\x00\x00", b"\xff" * 12])
def test_broken_options_of_a_pcapng_file_tell_nothing(options, tmp_path):
    path = tmp_path / "untold.pcapng"
    path.write_bytes(pcapng(handshake(0.01), options=options))
    assert not (read_captures(find([path])).segments["passage"] & (Passage.LEFT | Passage.ARRIVED)).any()


@pytest.mark.parametrize("ip", [packets.ipv4, packets.ipv6])
def test_the_sum_of_the_pseudo_header_alone_is_no_checksum(ip, tmp_path):
    """Of RFC 9293 section 3.1, worked out word by word; a SYN with that and one with another."""
    plain = packets.tcp(flags=packets.SYN, options=packets.mss(1460))
    packet = ip(plain)
    addresses = packet[12:20] if ip is packets.ipv4 else packet[8:40]
    words = sum(int.from_bytes(addresses[n : n + 2]) for n in range(0, len(addresses), 2)) + 6 + len(plain)
    words = (words & 0xFFFF) + (words >> 16)
    frames = [ip(plain[:16] + (words + wrong).to_bytes(2) + plain[18:]) for wrong in (0, 1)]
    path = tmp_path / "syns.pcap"
    path.write_bytes(packets.pcap(frames, link=101))
    assert read_captures(find([path])).segments["passage"].tolist() == [Passage.UNSUMMED, 0]


def test_estimated_times_do_not_turn_the_order_of_a_segment_and_its_ack():
    """Between the hosts, and so near them that a segment seems to leave 1 us before the ACK that let it go."""
    [finding] = analyze([recordings.DIRECTORY.parent / "captures" / "between.pcap"]).report.findings
    assert (finding.cause, finding.exchanges) == (Cause.STANDOFF, 5)
