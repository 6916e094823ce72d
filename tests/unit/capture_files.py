"""Conversations on paper (``dialogue``) as the bytes of capture files."""

from __future__ import annotations

import struct

from tests.unit.dialogue import CLIENT, SERVER, a, handshake, q, rows_of
from tests.unit.packets import block, option

#: 2026-01-01, so that times need all their bits.
EPOCH_NS = 1_767_225_600_000_000_000
LINK_ETHERNET = 1


def standoffs(rounds=4):
    """A client that writes its request in two pieces; each ACK of the first takes 40 ms."""
    packets = handshake(1)
    at, asked, answered = 2.0, 0, 0
    for _ in range(rounds):
        packets += [
            q(at, asked, 100, answered),
            a(at + 41, answered, 0, asked + 100),
            q(at + 41.05, asked + 100, 200, answered),
            a(at + 42.2, answered, 50, asked + 300),
        ]
        asked, answered, at = asked + 300, answered + 50, at + 45
    return packets


def frames(packets):
    """(time in ns, Ethernet frame) of each packet."""
    found = []
    for row in rows_of(packets):
        ends = (CLIENT, SERVER) if row["to_server"] else (SERVER, CLIENT)
        payload = bytes(int(row["bytes"]))
        tcp = struct.pack(
            ">HHIIBBHHH", ends[0].port, ends[1].port, row["seq"], row["ack"], 5 << 4, row["tcp_flags"],
            0xFFFF, 0, 0,
        )  # fmt: skip
        ip = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 0, 0, 64, 6, 0,
            ends[0].address.packed, ends[1].address.packed,
        )  # fmt: skip
        found.append((EPOCH_NS + int(row["time_ns"]), bytes(12) + b"\x08\x00" + ip + tcp + payload))
    return found


def pcap(packets, order="<", nanoseconds=False, snap=65535):
    """A classic capture."""
    magic, tick = (0xA1B23C4D, 1) if nanoseconds else (0xA1B2C3D4, 1000)
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap, LINK_ETHERNET)]
    for time_ns, frame in frames(packets):
        seconds, rest = divmod(time_ns, 1_000_000_000)
        kept = frame[:snap]
        parts.append(struct.pack(order + "IIII", seconds, rest // tick, len(kept), len(frame)) + kept)
    return b"".join(parts)


def pcapng(
    packets, order="<", resolution=9, section_length=-1, options=b"", before=b"", behind=b"", later_ns=0
):
    """A next generation capture.

    ``options`` (bytes, or what gives them for a frame) end each packet block, ``before`` and ``behind`` stand around all packets, which are ``later_ns``.
    """
    end = option(0, b"", order)
    parts = [
        block(
            1, struct.pack(order + "HHI", LINK_ETHERNET, 0, 0)
            + option(2, b"eth0", order) + option(9, bytes([resolution]), order) + end, order,
        ),
        before,
    ]  # fmt: skip
    for time_ns, frame in frames(packets):
        ticks = (time_ns + later_ns) // 10 ** (9 - resolution)
        head = struct.pack(order + "IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
        ending = options(frame) if callable(options) else options
        parts.append(block(6, head + frame + bytes(-len(frame) % 4) + ending, order))
    body = b"".join([*parts, behind])
    length = len(body) if section_length is None else section_length
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, length), order) + body
