"""Both formats, whole, cut at every byte, with bytes behind, and lying; and the chain of records however it is followed."""

from __future__ import annotations

import itertools
import random
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit import packets as p

from ackward.capture import chain, framing
from ackward.capture.interfaces import MOST_INTERFACES
from ackward.capture.reading import WireCapture, read_captures
from ackward.capture.sources import Source
from ackward.errors import UsageError

FRAMES = p.Talk().open().send(0, b"question", flags=24).send(1, b"answer" * 40, flags=24).close().frames
TIMES = [p.START + number * 1_000_000 for number in range(len(FRAMES))]
LATEST = (1 << 63) // 10**9 * 10**9 - 10**9

OPTIONED = p.section() + p.interface(name="eth0") + b"".join(
    p.block(6, struct.pack("<IIIII", 0, *divmod(time // 1000, 1 << 32), len(frame), len(frame)) + frame + bytes(-len(frame) % 4)
            + p.option(1, b"a comment") + p.option(0, b""))
    for frame, time in zip(FRAMES, TIMES, strict=True)
)  # fmt: skip
FILES = {
    "pcap": p.pcap(FRAMES),
    "pcap, big endian": p.pcap(FRAMES, order=">"),
    "pcap, nanoseconds": p.pcap(FRAMES, nano=True),
    "pcap, nanoseconds, big endian": p.pcap(FRAMES, nano=True, order=">"),
    "pcap, modified": p.pcap(FRAMES, modified=True),
    "pcap, modified, big endian": p.pcap(FRAMES, modified=True, order=">"),
    "pcapng": p.pcapng(FRAMES),
    "pcapng, big endian": p.pcapng(FRAMES, order=">"),
    "pcapng, options and unknown blocks": OPTIONED + p.block(0x0BAD, b"what is this"),
    "pcapng, obsolete packets": p.section() + p.interface()
    + b"".join(p.obsolete(frame, time // 1000) for frame, time in zip(FRAMES, TIMES, strict=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_whole(read, name: str) -> None:
    found = read(FILES[name])
    assert not found.problems
    assert found.segments["time_ns"].tolist() == TIMES
    assert found.segments["packet"].tolist() == list(range(len(FRAMES)))
    assert found.packets == {"capture": len(FRAMES)}
    assert found.segments["bytes"].sum() == 8 + 240
    assert len(found.flows) == 1


def _boundaries(name: str) -> list[int]:
    """Where records or blocks end."""
    data = FILES[name]
    if "pcapng" not in name:
        at, ends = 24, [24]
        order, header = (">" if "big" in name else "<"), (24 if "modified" in name else 16)
        while at < len(data):
            at += header + struct.unpack_from(order + "I", data, at + 8)[0]
            ends.append(at)
        return ends
    at, ends = 0, []
    while at < len(data):
        at += struct.unpack_from((">" if "big" in name else "<") + "I", data, at + 4)[0]
        ends.append(at)
    return ends


@pytest.mark.parametrize("name", FILES)
def test_cut_at_every_byte(read, name: str) -> None:
    data, ends = FILES[name], _boundaries(name)
    packets = read(data).segments["time_ns"].tolist()
    least = 24 if "pcapng" not in name else 4
    for size in range(len(data)):
        if size < least:
            with pytest.raises(UsageError) as raised:
                read(data[:size])
            inside = "it ends inside the file header" if size >= 4 else "it is"
            assert f"capture: {inside}" in str(raised.value)
            continue
        found = read(data[:size])
        blocks = sum(end <= size for end in ends)
        kept = max(0, blocks - (1 if "pcapng" not in name else 2))
        assert found.segments["time_ns"].tolist() == packets[:kept]
        if size in ends and kept:
            assert not found.problems
            continue
        (problem,) = found.problems
        if size in ends:
            assert problem.what == "it holds no packets"
            continue
        assert problem.offset == max((end for end in ends if end <= size), default=0)
        assert ("ends in the middle" if problem.offset else "ends inside the file header") in problem.what


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "extra", [b"\0" * 100, b"\xff" * 100, b"GET / HTTP/1.1\r\n" * 9, b"\x0a\x0d\x0d\x0a" * 20]
)
def test_bytes_behind_the_end_are_reported(read, name: str, extra: bytes) -> None:
    found = read(FILES[name] + extra)
    assert found.segments["time_ns"].tolist()[: len(FRAMES)] == TIMES
    assert len(found.segments) == len(FRAMES)
    assert any(
        problem.offset is not None and problem.offset >= len(FILES[name]) for problem in found.problems
    )


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("lie", [0, 1, 7, 13, 30, 0x7FFFFFFC, 0xFFFFFFFF, 0x04000004])
def test_lengths_that_lie(read, name: str, lie: int) -> None:
    data, ends = bytearray(FILES[name]), _boundaries(name)
    order = ">" if "big" in name else "<"
    victim = ends[4]
    struct.pack_into(order + "I", data, victim + (4 if "pcapng" in name else 8), lie)
    found = read(bytes(data))
    good = 3 if "pcapng" in name else 4
    assert found.segments["time_ns"].tolist()[:good] == TIMES[:good]
    assert (
        any(problem.offset is not None and problem.offset >= victim for problem in found.problems)
        or found.skipped
    )


@pytest.mark.parametrize(
    ("resolution", "ticks", "expected"),
    [
        (None, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
        (0, 1_700_000_000, 1_700_000_000_000_000_000),
        (3, 1_700_000_000_123, 1_700_000_000_123_000_000),
        (9, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (10, 17_000_000_001_234_567_891, 1_700_000_000_123_456_789),
        (12, 1_234_567, 1_234),
        (0x7F, 12345, 0),
        (0x80, 1_700_000_000, 1_700_000_000_000_000_000),
        (0x8A, 1_700_000_000 * 1024 + 512, 1_700_000_000_500_000_000),
        (0xA0, (1_700_000_000 << 32) + (1 << 30), 1_700_000_000_250_000_000),
        (0x80 | 40, (1_000 << 40) + (3 << 38), 1_000_750_000_000),
        (0x80 | 63, (1 << 63) + (1 << 62), 1_500_000_000),
        (0x80 | 64, 1 << 63, 500_000_000),
        (0x80 | 100, 1 << 63, 0),
        (0x80 | 127, 1 << 63, 0),
    ],
)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("clocks", [1, 2])
def test_clock_resolutions(
    read, order: str, resolution: int | None, ticks: int, expected: int, clocks: int
) -> None:
    """Alone, and beside an interface with another clock."""
    interfaces = p.interface(1, order, resolution=resolution) + (
        p.interface(1, order) if clocks == 2 else b""
    )
    found = read(p.section(order) + interfaces + p.enhanced(FRAMES[0], ticks, 0, order))
    assert not found.problems
    assert found.segments["time_ns"].tolist() == [expected]


@pytest.mark.parametrize("resolution", [6, 0x94])
def test_clock_offsets_and_absurd_times(read, resolution: int) -> None:
    second = 10**6 if resolution == 6 else 1 << 20

    def at(offset_s: int, ticks: int) -> WireCapture:
        return read(
            p.section() + p.interface(resolution=resolution, offset_s=offset_s)
            + p.enhanced(FRAMES[0], ticks) + p.enhanced(FRAMES[1], 10**9 * second)
        )  # fmt: skip

    assert at(100, 5 * second).segments["time_ns"][0] == 105 * 10**9
    assert at(-5, 7 * second).segments["time_ns"][0] == 2 * 10**9
    for offset_s, ticks in (
        (-8, 7 * second),
        (2**63 - 1, 0),
        (-(2**63), 5),
        (0, 2**64 - 1),
        (LATEST // 10**9, second),
    ):
        found = at(offset_s, ticks)
        assert any("time outside 1970 to 2262" in problem.what for problem in found.problems)
        assert 0 not in found.segments["packet"]


def test_pcap_reaches_beyond_2038_and_counts_times_that_go_back(read) -> None:
    late = [
        (FRAMES[0], 4_294_967_295 * 10**9),
        (FRAMES[1], p.START),
        (FRAMES[2], p.START + 5),
        (FRAMES[3], p.START + 4),
    ]
    found = read(p.pcap(late, nano=True))
    assert found.segments["time_ns"].tolist() == [entry[1] for entry in late]
    (problem,) = found.problems
    assert "goes back (times: 2), by up to 2594967295.000000000 s" in problem.what
    assert problem.offset == 24 + 16 + len(FRAMES[0]) + 16


def test_simple_packets_have_no_time_of_their_own(read) -> None:
    data = p.section() + p.interface(snap=80) + p.enhanced(FRAMES[0], 1_000_000) + p.simple(FRAMES[1])
    data += p.simple(FRAMES[4][:80], original=len(FRAMES[4])) + p.enhanced(FRAMES[2], 3_000_000)
    found = read(data)
    assert found.segments["time_ns"].tolist() == [10**9, 10**9, 10**9, 3 * 10**9]
    assert found.segments["bytes"].tolist() == [0, 0, 240, 0]
    assert found.truncated
    (problem,) = found.problems
    assert "carry no time (simple packet blocks): 2" in problem.what


def test_sections_and_interfaces_of_several_clocks_links_and_orders(read) -> None:
    first = (
        p.section() + p.interface(name="eth0", resolution=9) + p.interface(101, name="tun0", resolution=0x8A)
    )
    first += p.enhanced(FRAMES[0], 10**9) + p.enhanced(FRAMES[1][14:], 2 * 1024, 1)
    second = (
        p.section(">")
        + p.interface(113, ">", name="any")
        + p.enhanced(p.cooked(FRAMES[2][14:]), 3 * 10**6, 0, ">")
    )
    third = p.section(">") + p.interface(1, ">", offset_s=4) + p.enhanced(FRAMES[3], 0, 0, ">")
    found = read(first + second + third + first)
    assert found.sources[0].interfaces == ("eth0", "tun0", "any", "", "eth0", "tun0")
    assert sorted(set(found.segments["time_ns"].tolist())) == [10**9, 2 * 10**9, 3 * 10**9, 4 * 10**9]
    assert found.link_types == (1, 101, 113)
    assert len(found.segments) == 6
    # Several interfaces are merged by time.
    assert (np.diff(found.segments["time_ns"][found.flows[0].segments]) >= 0).all()


def test_packets_of_nobody_and_blocks_too_short(read) -> None:
    data = p.section() + p.enhanced(FRAMES[0], 1) + p.section() + p.interface() + p.enhanced(FRAMES[1], 2)
    data += (
        p.enhanced(FRAMES[2], 3, number=7)
        + p.enhanced(FRAMES[3], 4, captured=5000)
        + p.enhanced(FRAMES[4], 5)
    )
    data += p.section() + p.enhanced(FRAMES[5], 6)  # interfaces end with their section
    found = read(data)
    whats = sorted(problem.what for problem in found.problems)
    assert whats == [
        "packet blocks shorter than the packet they claim: 1",
        "packets of no interface that the file describes: 3",
    ]
    assert sorted(found.segments["packet"].tolist()) == [1, 4]


def test_lost_packets_are_told(read) -> None:
    def statistics(number: int, dropped: int) -> bytes:
        return p.block(
            5, struct.pack("<III", number, 0, 0) + p.option(5, struct.pack("<Q", dropped)) + p.option(0, b"")
        )

    data = p.section() + p.interface() + p.interface() + p.enhanced(FRAMES[0], 1)
    assert read(data).sources[0].lost is None
    data += statistics(0, 3) + statistics(1, 5) + statistics(0, 4) + statistics(9, 9)
    assert read(data).sources[0].lost == 9


def test_a_million_interfaces(read) -> None:
    """Linear time, bounded memory, and the packets of those that are believed stay."""
    count = 1_000_000
    body = p.interface(name="x" * 40) * count
    found = read(p.section() + body + p.enhanced(FRAMES[0], 1, 5) + p.enhanced(FRAMES[1], 2, count - 1))
    assert len(found.sources[0].interfaces) == MOST_INTERFACES
    assert len(found.segments) == 1
    assert any(problem.what.endswith(f"believed: {count - MOST_INTERFACES}") for problem in found.problems)


def test_sections_without_end(read) -> None:
    """Also when each turns the byte order round."""
    turning = (p.section("<") + p.section(">")) * 100_000
    found = read(turning)
    assert any("byte order changes more than" in problem.what for problem in found.problems)
    found = read(p.section() * 200_000 + p.interface() + p.enhanced(FRAMES[0], 1))
    assert len(found.segments) == 1
    assert not found.problems


# --- long files: many lanes ---------------------------------------------------------------------------------------


def _many(count: int, seed: int, hostile: bool) -> list[p.Entry]:
    """Packets of all sizes; the payload of hostile ones is a capture itself."""
    random_ = random.Random(seed)
    inner = p.pcap(FRAMES * 3) + p.pcapng(FRAMES * 3)
    entries: list[p.Entry] = []
    for number in range(count):
        size = random_.choice([0, 0, 1, 90, 536, 1448, 1448, 9000])
        payload = random_.randbytes(size)
        if hostile and size > 500:
            begin = random_.randrange(len(inner))
            payload = inner[begin:] + inner[:begin]
        frame = p.ethernet(p.ipv4(p.tcp(seq=number, payload=payload)))
        entries.append((frame, p.START + number * 1_000_000, len(frame)))
    return entries


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("build", [p.pcap, p.pcapng])
@pytest.mark.parametrize("hostile", [False, True])
def test_lanes_give_what_one_by_one_gives(read, monkeypatch, build, order: str, hostile: bool) -> None:
    entries = _many(4000, 1, hostile)
    data = build(entries, order=order)
    by_lanes = read(data)
    assert by_lanes.segments["seq"].tolist() == list(range(4000))
    assert by_lanes.segments["time_ns"].tolist() == [entry[1] for entry in entries]
    assert not by_lanes.problems
    monkeypatch.setattr(chain, "FEWEST_LANES", 1 << 30)
    one_by_one = read(data)
    assert (by_lanes.segments == one_by_one.segments).all()


@pytest.mark.parametrize("build", [p.pcap, p.pcapng])
def test_lanes_in_small_chunks(read, monkeypatch, build) -> None:
    """The border between two chunks falls everywhere, also into headers; records may be longer than a chunk."""
    monkeypatch.setattr(chain, "FEWEST_LANES", 2)
    monkeypatch.setattr(chain, "WINDOWS", ((0, 64), (64, 256)))
    data = build(_many(300, 2, hostile=True))
    for size in itertools.chain(range(64, 128, 5), (1000, 4096, 50_000)):
        monkeypatch.setattr(framing, "CHUNK", size)
        found = read(data)
        assert found.segments["seq"].tolist() == list(range(300))
        assert not found.problems


def test_bad_guesses_cost_time_and_nothing_else(read, monkeypatch) -> None:
    """Guesses are made anywhere at all: what is found stays true."""
    entries = _many(1500, 3, hostile=False)
    data = p.pcap(entries)
    random_ = random.Random(4)

    def anywhere(self: chain.Chain, begin: int, last: int, plausible: object) -> np.ndarray:
        return np.array([begin, *sorted(random_.sample(range(begin + 1, max(begin + 60, last)), 40))])

    monkeypatch.setattr(chain.Chain, "_guess", anywhere)
    found = read(data)
    assert found.segments["seq"].tolist() == list(range(1500))


@given(st.binary(max_size=300), st.sampled_from(sorted(FILES)), st.data())
@settings(max_examples=300, deadline=None)
def test_noise_is_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, name: str, data: st.DataObject
) -> None:
    """Some bytes of a capture are overwritten, some are put in, some are taken out."""
    whole = FILES[name]
    at = data.draw(st.integers(0, len(whole)))
    gone = data.draw(st.integers(0, 40))
    path: Path = tmp_path_factory.getbasetemp() / "noise"
    path.write_bytes(whole[:at] + noise + whole[at + gone :])
    try:
        found = read_captures([Source("noise", path)], vxlan=4789)
    except UsageError as error:
        assert re.search("noise: (it is|it ends inside|nothing in it)", str(error))
        return
    (source,) = found.sources
    assert source.packets >= len(found.segments)
    assert sum(flow.segments.stop - flow.segments.start for flow in found.flows) == len(found.segments)
