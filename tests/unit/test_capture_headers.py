"""Every shape of packet is decoded whole, cut at every byte, and with bytes behind it; nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit import packets as p

from ackward.capture.headers import BAD, CUT, FRAGMENT, NOT_IP, NOT_TCP, UNKNOWN_LINK
from ackward.capture.reading import read_captures
from ackward.capture.sources import Source

SEGMENT = p.tcp(
    seq=0xFFFFFFF0,
    ack=7,
    flags=p.PSH | p.ACK,
    window=321,
    options=p.aligned_times(11, 12),
    payload=b"x" * 100,
)
#: name -> (link type, frame, bytes of payload)
SHAPES: dict[str, tuple[int, bytes, int]] = {
    "ethernet": (1, p.ethernet(p.ipv4(SEGMENT)), 100),
    "vlan": (1, p.ethernet(p.ipv4(SEGMENT), tags=[(0x8100, 5)]), 100),
    "qinq": (1, p.ethernet(p.ipv4(SEGMENT), tags=[(0x88A8, 5), (0x8100, 6)]), 100),
    "vlan, three deep": (1, p.ethernet(p.ipv4(SEGMENT), tags=[(0x9100, 1), (0x8100, 2), (0x8100, 3)]), 100),
    "cooked": (113, p.cooked(p.ipv4(SEGMENT)), 100),
    "cooked, ipv6": (113, p.cooked(p.ipv6(SEGMENT), 0x86DD), 100),
    "cooked v2": (276, p.cooked2(p.ipv4(SEGMENT)), 100),
    "cooked v2, ipv6": (276, p.cooked2(p.ipv6(SEGMENT), 0x86DD), 100),
    "raw": (101, p.ipv4(SEGMENT), 100),
    "raw, ipv6": (101, p.ipv6(SEGMENT), 100),
    "raw as of BSD": (12, p.ipv4(SEGMENT), 100),
    "raw as of OpenBSD": (14, p.ipv4(SEGMENT), 100),
    "raw ipv4": (228, p.ipv4(SEGMENT), 100),
    "raw ipv6": (229, p.ipv6(SEGMENT), 100),
    "null, little endian": (0, p.loopback(p.ipv4(SEGMENT)), 100),
    "null, big endian": (0, p.loopback(p.ipv4(SEGMENT), 2, ">"), 100),
    "null, ipv6 of Darwin": (0, p.loopback(p.ipv6(SEGMENT), 30), 100),
    "null, ipv6 of FreeBSD": (0, p.loopback(p.ipv6(SEGMENT), 28, ">"), 100),
    "loop": (108, p.loopback(p.ipv6(SEGMENT), 24, ">"), 100),
    "ipv4 options": (1, p.ethernet(p.ipv4(SEGMENT, options=b"\x01" * 12)), 100),
    "ipv4 without a length": (1, p.ethernet(p.ipv4(SEGMENT, length=0)), 100),
    "first fragment": (1, p.ethernet(p.ipv4(SEGMENT, more=True)), 100),
    "ipv6": (1, p.ethernet(p.ipv6(SEGMENT), 0x86DD), 100),
    "ipv6 without a length": (1, p.ethernet(p.ipv6(SEGMENT, length=0), 0x86DD), 100),
    "ipv6, all extensions": (
        1,
        p.ethernet(
            p.ipv6(
                SEGMENT, extensions=[p.HOP_BY_HOP, p.ROUTING, p.fragment(), p.AUTHENTICATION, p.DESTINATION]
            ),
            0x86DD,
        ),
        100,
    ),
    "no options": (
        1,
        p.ethernet(p.ipv4(p.tcp(seq=0xFFFFFFF0, ack=7, flags=24, window=321, payload=b"yy"))),
        2,
    ),
    "vxlan": (1, p.vxlan(p.ethernet(p.ipv4(SEGMENT))), 100),
}


def options_of(name: str) -> dict[str, object]:
    return {"vxlan": 4789} if name == "vxlan" else {}


@pytest.mark.parametrize("name", SHAPES)
def test_whole(read, name: str) -> None:
    link, frame, size = SHAPES[name]
    found = read(p.pcap([frame], link), **options_of(name))
    assert len(found.segments) == 1, found.skipped
    row = found.segments[0]
    assert (row["seq"], row["ack"], row["bytes"], row["window"], row["tcp_flags"], row["segments"]) == (
        0xFFFFFFF0, 7, size, 321, p.PSH | p.ACK, 1,
    )  # fmt: skip
    assert (row["tsval"], row["tsecr"]) == ((11, 12) if size == 100 else (0, 0))
    assert (row["time_ns"], row["packet"], row["sack_left"]) == (p.START, 0, 0)
    flow = found.flows[0]
    ends = (
        (p.CLIENT_6, p.SERVER_6)
        if ("6" in name and "ipv6" in name) or name == "loop"
        else (p.CLIENT, p.SERVER)
    )
    assert (str(flow.client.address), flow.client.port) == (ends[0], 40000)
    assert (str(flow.server.address), flow.server.port) == (ends[1], 80)
    assert row["to_server"]
    assert not flow.role_seen
    assert flow.tunnel == (42 if name == "vxlan" else None)
    assert not found.skipped
    assert not found.problems
    assert not found.truncated
    assert found.link_types == (link,)


@pytest.mark.parametrize("name", SHAPES)
def test_with_bytes_behind(read, name: str) -> None:
    """What fills up a frame is not payload, unless nothing but the frame tells the length."""
    link, frame, size = SHAPES[name]
    found = read(p.pcap([frame + b"\xaa" * 7], link), **options_of(name))
    extra = 7 if "without a length" in name else 0
    assert found.segments["bytes"].tolist() == [size + extra]


@pytest.mark.parametrize("name", SHAPES)
def test_cut_at_every_byte(read, name: str) -> None:
    """A packet of which the snap length kept less.

    The header's whole or it is counted; the payload's length stays true.
    """
    link, frame, size = SHAPES[name]
    whole = read(p.pcap([frame], link), **options_of(name)).segments[0]
    least = len(frame) - size - (12 if size == 100 else 0)  # the header without its options
    entries = [(frame[:kept], p.START, len(frame)) for kept in range(len(frame))]
    found = read(p.pcap(entries, link), **options_of(name))
    assert found.truncated
    assert found.segments["packet"].tolist() == list(range(least, len(frame)))
    assert sum(found.skipped.values()) == least
    assert set(found.skipped) <= {CUT, NOT_TCP, NOT_IP}
    for row in found.segments:
        assert all(row[field] == whole[field] for field in ("seq", "ack", "bytes", "window", "tcp_flags"))
        assert row["tsval"] == (whole["tsval"] if row["packet"] >= len(frame) - size else 0)


@pytest.mark.parametrize("name", [name for name in SHAPES if "without a length" not in name])
def test_frame_cut_without_a_word(read, name: str) -> None:
    """Some programs cut frames and hide it: the IP header still tells the length."""
    link, frame, size = SHAPES[name]
    kept = frame[: len(frame) - size]
    found = read(p.pcap([kept], link), **options_of(name))
    assert found.segments["bytes"].tolist() == [size]
    assert found.truncated


@pytest.mark.parametrize(
    ("reason", "link", "frame"),
    [
        (NOT_IP, 1, p.ethernet(b"\0" * 40, 0x0806)),
        (NOT_IP, 1, p.ethernet(b"\0" * 40, tags=[(0x8100, 1)] * 9)),
        (NOT_IP, 101, b"\x50" + bytes(60)),
        (NOT_IP, 0, p.loopback(p.ipv4(SEGMENT), 7)),
        (NOT_TCP, 1, p.ethernet(p.ipv4(p.udp(1, 2, b"x"), protocol=17))),
        (NOT_TCP, 1, p.ethernet(p.ipv6(b"x" * 8, protocol=58), 0x86DD)),
        (NOT_TCP, 1, p.vxlan(p.ethernet(p.ipv4(SEGMENT)))),
        (NOT_TCP, 1, p.ethernet(p.ipv6(SEGMENT, extensions=[p.DESTINATION] * 20), 0x86DD)),
        (FRAGMENT, 1, p.ethernet(p.ipv4(SEGMENT, fragment=10))),
        (FRAGMENT, 1, p.ethernet(p.ipv4(SEGMENT, fragment=10, more=True))),
        (FRAGMENT, 1, p.ethernet(p.ipv6(SEGMENT, extensions=[p.fragment(9)]), 0x86DD)),
        (BAD, 1, p.ethernet(p.ipv4(SEGMENT, header=4))),
        (BAD, 1, p.ethernet(p.ipv4(SEGMENT, length=19))),
        (BAD, 1, p.ethernet(p.ipv4(SEGMENT, length=45))),
        (BAD, 1, p.ethernet(p.ipv4(SEGMENT, version=5))),
        (BAD, 1, p.ethernet(p.ipv4(SEGMENT), 0x86DD)),
        (BAD, 1, p.ethernet(p.ipv4(p.tcp(offset=4)))),
        (BAD, 1, p.ethernet(p.ipv4(p.tcp(offset=6)))),
        (CUT, 1, p.ethernet(b"")[:13]),
        (UNKNOWN_LINK, 147, p.ethernet(p.ipv4(SEGMENT))),
    ],
)
def test_what_is_no_segment_is_counted(read, reason: str, link: int, frame: bytes) -> None:
    good = p.ethernet(p.ipv4(SEGMENT))
    found = read(p.pcap([frame], link))
    assert found.skipped == {reason: 1}
    assert not len(found.segments)
    assert not len(found.flows)
    if link == 1:  # and its neighbours stay
        found = read(p.pcap([good, frame, good]))
        assert found.segments["packet"].tolist() == [0, 2]
        assert found.skipped == {reason: 1}


def test_layers_mixed_in_one_capture_keep_their_order(read) -> None:
    shapes = [frame for link, frame, _ in SHAPES.values() if link == 1] * 3
    found = read(p.pcap(shapes), vxlan=4789)
    assert sorted(found.segments["packet"]) == list(range(len(shapes)))
    for flow in found.flows:
        assert (np.diff(found.segments["packet"][flow.segments]) > 0).all()


@pytest.mark.parametrize(
    ("ack", "blocks", "duplicate"),
    [
        (10, [(20, 30)], False),
        (40, [(20, 30)], True),
        (10, [(20, 30), (40, 50)], False),
        (10, [(20, 30), (20, 50)], True),  # a part of what is held beyond the hole came again
        (10, [(20, 30), (25, 50)], False),
        (5, [(2**32 - 10, 2**32 - 5)], True),
        (2**32 - 20, [(2**32 - 10, 5), (2**32 - 10, 9)], True),
    ],
)
def test_a_first_block_below_the_ack_or_within_the_second_tells_of_a_duplicate(
    tmp_path: Path, ack: int, blocks: list[tuple[int, int]], duplicate: bool
) -> None:
    frame = p.ethernet(p.ipv4(p.tcp(flags=p.ACK, ack=ack, options=p.NOP * 2 + p.sack(*blocks))))
    (tmp_path / "capture").write_bytes(p.pcap([frame]))
    [row] = read_captures([Source("capture", tmp_path / "capture")]).segments
    assert (int(row["sack_left"]), int(row["sack_right"])) == blocks[0]
    assert bool(row["dsack"]) == duplicate


OPTIONS = [
    p.mss(1460), p.scale(7), p.SACK_OK, p.NOP, p.sack((1, 2)), p.sack((3, 4), (5, 6)), p.times(8, 9), p.mptcp(), b"\x22\x03\x00",
]  # fmt: skip


@given(st.lists(st.sampled_from(OPTIONS), max_size=6).filter(lambda chosen: len(b"".join(chosen)) <= 40))
@settings(max_examples=200)
def test_options_in_any_order(tmp_path_factory: pytest.TempPathFactory, chosen: list[bytes]) -> None:
    options = b"".join(chosen)
    path = tmp_path_factory.getbasetemp() / "options"
    frames = [p.ethernet(p.ipv4(p.tcp(flags=flags, options=options))) for flags in (p.SYN, p.ACK)]
    path.write_bytes(p.pcap(frames))
    found = read_captures([Source("capture", path)])
    row, flow = found.segments[1], found.flows[0]
    blocks = [option for option in chosen if option[0] == 5]
    assert (int(row["sack_left"]), int(row["sack_right"])) in (
        {(int.from_bytes(b[2:6]), int.from_bytes(b[6:10])) for b in blocks} or {(0, 0)}
    )
    assert (row["tsval"], row["tsecr"]) == ((8, 9) if p.times(8, 9) in chosen else (0, 0))
    assert flow.client_mss == (1460 if p.mss(1460) in chosen else None)
    assert flow.mptcp == (p.mptcp() in chosen)
    assert not flow.window_scale_known


@pytest.mark.parametrize(
    "options",
    [b"\x08\x0a\0\0", b"\x05\x00\0\0", b"\x08\x01\0\0", b"\x05\xff\0\0", b"\x02\x04", b"\x00\x08\x0a\x01", b"\x05\x02\x05\x09" * 2],
)  # fmt: skip
def test_options_that_lie_tell_nothing(read, options: bytes) -> None:
    found = read(p.pcap([p.ethernet(p.ipv4(p.tcp(options=options, payload=b"\x08\x0a" + b"\xff" * 40)))]))
    row = found.segments[0]
    assert (row["tsval"], row["tsecr"], row["sack_left"], row["sack_right"]) == (0, 0, 0, 0)
    assert row["bytes"] == 42


def test_a_filter_leaves_out_and_counts(read) -> None:
    frames = p.Talk().open().frames + p.Talk("10.0.0.9", ports=(50000, 443)).open().frames
    for options, flows in (({"port": 443}, 1), ({"port": 80}, 2), ({"host": "10.0.0.9"}, 1), ({"host": "10.0.0.2"}, 2),
                           ({"host": "fd00::2"}, 1), ({"host": "fd00::2", "port": 443}, 0), ({"host": "fd00::3"}, 0)):  # fmt: skip
        found = read(p.pcap(frames[:6] + [p.ethernet(p.ipv6(p.tcp()), 0x86DD)] * 3), **options)
        assert len(found.flows) == flows
        assert sum(found.skipped.values()) + len(found.segments) == 9
