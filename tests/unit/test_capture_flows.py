"""Segments to flows: port reuse, ends, windows, offload, captures that begin anywhere."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from ipaddress import IPv6Address

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit import packets as p
from tests.unit.packets import ACK, FIN, PSH, RST, SYN, Talk

from ackward.capture.interning import Interning
from ackward.capture.reading import WireCapture, read_captures
from ackward.capture.sources import Source

OPTIONS = p.mss(1460) + p.SACK_OK + p.times(1, 0) + p.NOP + p.scale(7)


@pytest.fixture(scope="module")
def read(read: Callable[[bytes], WireCapture]) -> Callable[[list[p.Entry]], WireCapture]:
    """Reads frames."""
    return lambda frames: read(p.pcap(frames))


def test_a_whole_connection(read) -> None:
    talk = Talk().open(OPTIONS, p.mss(1400) + p.SACK_OK + p.NOP + p.scale(3))
    talk.send(0, b"a" * 10, flags=PSH | ACK, window=100).send(1, b"b" * 20, window=200).close()
    found = read(talk.frames)
    (flow,) = found.flows
    assert (str(flow.client), str(flow.server)) == ("10.0.0.1:40000", "10.0.0.2:80")
    assert (flow.client_mss, flow.server_mss) == (1460, 1400)
    assert (flow.role_seen, flow.window_scale_known, flow.sack_permitted, flow.mptcp) == (
        True,
        True,
        True,
        False,
    )
    assert (flow.first_ns, flow.last_ns) == (p.START, p.START + (len(talk.frames) - 1) * 1_000_000)
    rows = found.segments[flow.segments]
    assert rows["to_server"].tolist() == [True, False, True, True, False, True, False, True]
    # The windows of SYNs are as they are; the others are scaled by their sender's shift.
    assert rows["window"].tolist() == [500, 500, 500 << 7, 100 << 7, 200 << 3, 500 << 7, 500 << 3, 500 << 7]


@pytest.mark.parametrize(
    ("ours", "theirs", "known", "factor"),
    [
        (p.scale(7), p.scale(2), True, (1 << 7, 1 << 2)),
        (p.scale(7), b"", True, (1, 1)),  # RFC 7323 section 2.2: both or none
        (b"", p.scale(2), True, (1, 1)),
        (p.scale(200), p.scale(15), True, (1 << 14, 1 << 14)),  # section 2.3
        (p.scale(0), p.scale(0), True, (1, 1)),
    ],
)
def test_window_scale(read, ours: bytes, theirs: bytes, known: bool, factor: tuple[int, int]) -> None:
    found = read(Talk().open(ours, theirs).send(1).frames)
    assert found.flows[0].window_scale_known == known
    assert found.segments["window"].tolist() == [500, 500, 500 * factor[0], 500 * factor[1]]


@pytest.mark.parametrize("missing", [0, 1])
def test_one_syn_is_not_enough_for_windows_but_for_roles(read, missing: int) -> None:
    frames = Talk().open(OPTIONS).frames
    del frames[missing]
    found = read(frames)
    (flow,) = found.flows
    assert flow.role_seen
    assert flow.client.port == 40000
    assert not flow.window_scale_known
    assert not flow.sack_permitted
    assert found.segments["window"].tolist() == [500, 500]


def test_a_syn_whose_options_were_cut_tells_nothing_of_windows(read) -> None:
    frames = Talk().open(OPTIONS).frames
    entries = [(frame[:54], p.START, len(frame)) for frame in frames]
    found = read(entries)
    assert found.flows[0].role_seen
    assert not found.flows[0].window_scale_known


def test_ports_that_are_used_again(read) -> None:
    first = Talk().open().send(0, b"one").close().frames
    second = Talk(isn=(9_000_000, 7_000_000)).open().send(0, b"two").frames  # not even closed
    third = Talk(isn=(77, 88)).open().send(0, b"three").send(0, flags=RST).frames
    found = read(first + second + third)
    assert [len(found.segments[flow.segments]) for flow in found.flows] == [
        len(first),
        len(second),
        len(third),
    ]
    assert [int(found.segments[flow.segments]["bytes"].sum()) for flow in found.flows] == [3, 3, 5]


def test_a_syn_sent_again_is_the_same_connection(read) -> None:
    frames = Talk().open().frames
    assert len(read([frames[0], frames[0], frames[1], frames[0], frames[1], frames[2]]).flows) == 1


def test_the_ends_change_places(read) -> None:
    """The same two ports, but now the other end calls."""
    there = Talk().open().close().frames
    back = Talk(p.SERVER, p.CLIENT, (80, 40000), isn=(5, 6)).open().frames
    found = read(there + back)
    assert [flow.client.port for flow in found.flows] == [40000, 80]


def test_capture_begins_in_the_middle_and_the_port_is_used_again(read) -> None:
    old = Talk(isn=(1 << 20, 1 << 30)).open().send(0, b"old").close().frames[3:]
    found = read(old + Talk(isn=(1 << 28, 9)).open().frames)
    assert [flow.role_seen for flow in found.flows] == [False, True]
    assert [flow.client.port for flow in found.flows] == [40000, 40000]


def test_segments_that_overtook_the_syn_belong_to_it(read) -> None:
    syn, answer, ack, data = Talk().open().send(0, b"data").frames
    for order in ([answer, syn, ack, data], [ack, syn, answer, data], [data, ack, answer, syn]):
        found = read(order)
        assert len(found.flows) == 1
        assert found.flows[0].role_seen
        assert found.flows[0].client.port == 40000


def test_who_is_the_client_when_no_syn_was_seen(read) -> None:
    """A listening end of another connection; then a port that is no ephemeral one; then who sent first."""
    listening = Talk(ports=(50000, 40500)).open().frames
    by_endpoint = Talk(ports=(33000, 40500), isn=(1, 2)).open().frames[3:] or [
        p.ethernet(p.ipv4(p.tcp(40500, 33000), p.SERVER, p.CLIENT))
    ]
    found = read(listening + by_endpoint)
    assert [str(flow.server) for flow in found.flows] == ["10.0.0.2:40500"] * 2
    by_port = p.ethernet(p.ipv4(p.tcp(40500, 33000), "10.9.9.9", p.CLIENT))
    assert [flow.server.port for flow in read([*listening, by_port]).flows] == [40500, 40500]
    assert read([by_port]).flows[0].client.port == 40500  # it sent first
    low = p.ethernet(p.ipv4(p.tcp(443, 60000), p.SERVER, p.CLIENT))
    assert str(read([low]).flows[0].server) == "10.0.0.2:443"
    assert not read([low]).flows[0].role_seen


def test_mptcp_takes_both_ends(read) -> None:
    offered = Talk().open(p.mptcp(0), b"")
    assert not read(offered.frames).flows[0].mptcp
    assert read(Talk().open(p.mptcp(0)).frames).flows[0].mptcp
    assert read(Talk().send(0, b"x", options=p.mptcp(2)).frames).flows[0].mptcp


@pytest.mark.parametrize(
    ("opening", "options", "size", "segments"),
    [
        (p.mss(1460), b"", 1460, 1),
        (p.mss(1460), b"", 1461, 2),
        (p.mss(1460), p.aligned_times(1, 1), 1448 * 40, 40),
        (p.mss(1460), p.aligned_times(1, 1), 1448 * 40 + 1, 41),
        (p.mss(8960), p.aligned_times(1, 1), 8948 * 7, 7),
        (p.mss(536), b"", 1000, 2),
        (p.mss(0), b"", 14600, 10),
        (p.mss(1), b"", 72, 2),  # nobody means that: no less than Linux would send
        (b"", b"", 14600, 10),
    ],
)
def test_offloaded_packets_count_as_the_segments_they_are(
    read, opening: bytes, options: bytes, size: int, segments: int
) -> None:
    found = read(Talk().open(opening).send(0, b"x" * size, options=options).frames)
    assert found.segments["segments"].tolist() == [1, 1, 1, segments]
    assert found.segments["bytes"][-1] == size


@pytest.mark.parametrize(
    ("sizes", "times", "segments"),
    [
        ([100, 1460], False, [1, 1]),
        ([1448, 14480], True, [1, 10]),
        ([1388, 13880, 1388], True, [1, 10, 1]),  # a tunnel's smaller frames
        ([14480, 100], True, [10, 1]),  # nothing else to go by: frames of 1500 bytes
        ([8948, 8948, 100], True, [1, 1, 1]),  # jumbo frames
    ],
)
def test_without_a_syn_the_mss_is_the_most_plausible(
    read, sizes: list[int], times: bool, segments: list[int]
) -> None:
    talk = Talk()
    for size in sizes:
        talk.send(0, b"x" * size, options=p.aligned_times(1, 1) if times else b"")
    assert read(talk.frames).segments["segments"].tolist() == segments


def test_sequence_numbers_wrap(read) -> None:
    talk = Talk(isn=((1 << 32) - 2, (1 << 32) - 1)).open().send(0, b"x" * 100).send(1, b"y").close()
    found = read(talk.frames)
    assert len(found.flows) == 1
    assert found.segments["seq"][:5].tolist() == [
        (1 << 32) - 2,
        (1 << 32) - 1,
        (1 << 32) - 1,
        (1 << 32) - 1,
        0,
    ]


def test_both_families_and_tunnels_side_by_side(read, tmp_path) -> None:
    inner = Talk().open().frames
    six = Talk(p.CLIENT_6, p.SERVER_6).open().frames
    mapped = Talk("::ffff:10.0.0.1", "::ffff:10.0.0.2").open().frames
    path = tmp_path / "all"
    path.write_bytes(
        p.pcap(
            [*inner, *six, *mapped, *(p.vxlan(f, 1) for f in inner), *(p.vxlan(f, 0xFFFFFF) for f in inner)]
        )
    )
    found = read_captures([Source("all", path)], vxlan=4789)
    assert [flow.tunnel for flow in found.flows] == [None, None, None, 1, 0xFFFFFF]
    assert [str(flow.client) for flow in found.flows] == [
        "10.0.0.1:40000", "[fd00::1]:40000", f"[{IPv6Address('::ffff:10.0.0.1')}]:40000", "10.0.0.1:40000", "10.0.0.1:40000",
    ]  # fmt: skip
    assert all(flow.role_seen and len(found.segments[flow.segments]) == 3 for flow in found.flows)


def test_flows_are_a_sequence(read) -> None:
    found = read(Talk().open().frames + Talk(ports=(41000, 80)).open().frames)
    assert [flow.number for flow in found.flows] == [0, 1]
    assert found.flows[-1].client.port == 41000
    assert [flow.number for flow in found.flows[::-1]] == [1, 0]
    with pytest.raises(IndexError):
        found.flows[2]


def test_a_flag_salad_is_no_handshake(read) -> None:
    frames = Talk().open().send(0, b"x").frames
    salad = [
        p.ethernet(p.ipv4(p.tcp(seq=number * 77, flags=flags)))
        for number, flags in enumerate((SYN | FIN, SYN | RST, 0xFF, 0))
    ]
    assert len(read(frames + salad).flows) == 1


SYNTHETIC = st.tuples(
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from([SYN, SYN | ACK, ACK, FIN | ACK, RST]),
    st.integers(0, 3),
    st.integers(0, 3),
)


@given(st.lists(SYNTHETIC, max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_mixture_is_a_partition_into_flows(tmp_path_factory: pytest.TempPathFactory, events) -> None:
    """Each segment is in one flow, its flow has its ends, and the file's order is kept."""
    frames = []
    for pair, back, flags, seq, ack in events:
        ends, ports = (
            ((p.SERVER, p.CLIENT), (80, 40000 + pair)) if back else ((p.CLIENT, p.SERVER), (40000 + pair, 80))
        )
        frames.append(p.ethernet(p.ipv4(p.tcp(*ports, seq=seq << 28, ack=ack << 28, flags=flags), *ends)))
    path = tmp_path_factory.getbasetemp() / "mixture"
    path.write_bytes(p.pcap(frames))
    found = read_captures([Source("mixture", path)])
    assert sorted(found.segments["packet"].tolist()) == list(range(len(frames)))
    assert found.segments["flow"].tolist() == sorted(found.segments["flow"].tolist())
    for flow in found.flows:
        rows = found.segments[flow.segments]
        assert (rows["flow"] == flow.number).all()
        assert (np.diff(rows["packet"]) > 0).all()
        for row in rows:
            pair, back, flags, *_ = events[row["packet"]]
            assert {flow.client.port, flow.server.port} == {80, 40000 + pair}
            assert row["to_server"] == ((80 if back else 40000 + pair) == flow.client.port)
            assert row["tcp_flags"] == flags
        identities = {
            (
                events[row["packet"]][1] ^ bool(events[row["packet"]][2] & ACK),
                (int(row["ack"]) - 1) % (1 << 32) if row["tcp_flags"] & ACK else int(row["seq"]),
            )
            for row in rows
            if row["tcp_flags"] & SYN
        }
        assert len(identities) <= 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60), st.integers(1, 20))
def test_interning_is_a_dictionary(keys: list[tuple[int, int]], step: int) -> None:
    table, expected = Interning(), {}
    for begin in range(0, len(keys), step):
        some = keys[begin : begin + step]
        for key in some:
            expected.setdefault(key, len(expected))
        high, low = (np.array([key[half] for key in some], np.uint64) for half in (0, 1))
        assert table.number(high, low).tolist() == [expected[key] for key in some]
    assert list(zip(table.high.tolist(), table.low.tolist(), strict=True)) == list(expected)


def test_interning_grows_and_survives_keys_that_all_want_one_slot(monkeypatch) -> None:
    monkeypatch.setattr(Interning, "_home", lambda self, high, low: np.zeros(len(low), np.int64))
    table = Interning()
    keys = np.random.default_rng(1).permutation(np.repeat(np.arange(700, dtype=np.uint64), 3))
    numbers = table.number(np.zeros_like(keys), keys)
    assert (table.low[numbers] == keys).all()
    assert (np.diff(np.unique(numbers, return_index=True)[1]) > 0).all()  # numbered by first appearance
    monkeypatch.undo()
    table = Interning()
    keys = np.arange(300_000, dtype=np.uint64)
    for part in np.array_split(keys, 7):
        assert (table.number(part >> np.uint64(3), part) == part).all()


def test_memory_is_that_of_the_segments(tmp_path) -> None:
    frame = p.ethernet(p.ipv4(p.tcp(payload=b"x" * 1000)))
    path = tmp_path / "long"
    path.write_bytes(p.pcap([(frame, p.START)] * 60_000))
    read_captures([Source("long", path)])
    tracemalloc.start()
    read_captures([Source("long", path)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < path.stat().st_size + (
        60 << 20
    )  # a block of rows is 56 MiB, untouched ones are counted too
