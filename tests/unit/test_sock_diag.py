"""The parser of sock_diag messages: recorded from a kernel, cut at every byte, and fed with anything."""

from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from ackward.kernel.descriptors import network_classes
from ackward.kernel.netlink import attribute
from ackward.kernel.proc_tcp import ack_states, records
from ackward.kernel.sock_diag import SocketRecord, TcpState, parse, tcp_info

HEADER = struct.Struct("=4B4s16s16sIQ5I")
INFO = bytes(range(248))
ATTRIBUTES = (
    attribute(5, b"\x10")
    + attribute(2, INFO)
    + attribute(4, b"cubic\0")
    + attribute(15, struct.pack("=I", 0x2A))
    + attribute(21, struct.pack("=Q", 77))
)


def header(family: int, source: bytes, destination: bytes) -> bytes:
    ports = struct.pack("!HH", 7000, 41000)
    return HEADER.pack(
        family,
        1,
        1,
        3,
        ports,
        source.ljust(16, b"\0"),
        destination.ljust(16, b"\0"),
        9,
        0x1_0000_0002,
        150,
        5,
        6,
        1000,
        4242,
    )


V4 = header(socket.AF_INET, socket.inet_aton("10.0.0.1"), socket.inet_aton("10.0.0.2"))
WHOLE = V4 + ATTRIBUTES


def test_each_field_is_found():
    record = parse(WHOLE)
    assert (record.local, record.remote, record.family) == (("10.0.0.1", 7000), ("10.0.0.2", 41000), 4)
    assert (record.timer, record.retransmits, record.expires_ms, record.interface) == (1, 3, 150, 9)
    assert (record.read_queue, record.write_queue, record.uid, record.inode) == (5, 6, 1000, 4242)
    assert (record.cookie, record.traffic_class, record.mark, record.cgroup_id) == (0x1_0000_0002, 16, 42, 77)
    assert record.congestion_control == "cubic"
    assert record.info["rto"] == int.from_bytes(INFO[8:12], "little")
    assert record.info["snd_wnd"] == int.from_bytes(INFO[228:232], "little")


def test_cut_at_every_byte_what_is_told_is_true_and_the_rest_is_absent():
    whole = parse(WHOLE)
    for length in range(len(WHOLE)):
        record = parse(WHOLE[:length])
        if length < HEADER.size:
            assert record is None
            continue
        assert record[:14] == whole[:14]
        assert record.info.items() <= whole.info.items()
        assert record.congestion_control in (None, "cubic")
        assert record.mark in (None, 42)
        assert record.cgroup_id in (None, 77)


def test_an_older_kernel_gives_fewer_fields_and_a_newer_one_is_no_trouble():
    assert list(tcp_info(INFO[:104])) == list(tcp_info(INFO))[:32]
    assert list(tcp_info(INFO[:104]))[-1] == "total_retrans"  # the struct of Linux 2.6
    assert tcp_info(b"") == {}
    assert tcp_info(INFO + INFO) == tcp_info(INFO)


@given(st.binary(max_size=400))
def test_any_bytes_give_a_record_or_none(data):
    assert isinstance(parse(data), SocketRecord | None)
    assert isinstance(parse(WHOLE[: HEADER.size] + data), SocketRecord)


def test_mapped_addresses_are_ipv4_and_dual_stack_listeners_ipv6():
    mapped = bytes(10) + b"\xff\xff"
    record = parse(header(socket.AF_INET6, mapped + b"\x0a\0\0\x01", mapped + b"\x0a\0\0\x02"))
    assert (record.family, record.local[0], record.remote[0]) == (4, "10.0.0.1", "10.0.0.2")
    assert parse(header(socket.AF_INET6, b"", b"")).local[0] == "::"


def test_proc_lines_carry_quick_and_pingpong_only_where_a_socket_has_them():
    established = "3: 0100007F:858D 0100007F:C3B8 01 00000005:0000012C 00:00000000 00000000 7 0 706862 1 0000 20 4 29 10 -1"
    time_wait = "5: 0100007F:858D 0100007F:C3B9 06 00000000:00000000 03:00000C0B 00000000 0 0 0 3 0000"
    rows = [(socket.AF_INET, line.split()) for line in (established, time_wait)]
    [(key, state)] = ack_states(rows).items()
    assert key == (706862, "0100007F:858D", "0100007F:C3B8")
    assert (state.quick, state.pingpong) == (14, True)
    one, other = records(rows, TcpState)
    assert (one.local, one.write_queue, one.read_queue, one.uid) == (("127.0.0.1", 34189), 5, 300, 7)
    assert one.info == {"rto": 200_000, "ato": 40_000, "snd_cwnd": 10}
    assert (other.timer, other.expires_ms, other.info) == (3, 30830, {})


def test_a_process_in_a_network_class_of_its_own_is_told():
    plain = "5:cpu:/web\n0::/web\n"
    classed = plain + "3:net_cls,net_prio:/web\n"
    assert network_classes(plain) == []
    assert network_classes(classed) == ["3:net_cls,net_prio:/web"]
