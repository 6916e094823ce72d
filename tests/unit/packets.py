"""Builds frames and capture files byte by byte, so that tests know what is in them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
CLIENT, SERVER = "10.0.0.1", "10.0.0.2"
CLIENT_6, SERVER_6 = "fd00::1", "fd00::2"


# --- TCP ------------------------------------------------------------------------------------------------------------


def mss(value: int) -> bytes:
    return struct.pack(">BBH", 2, 4, value)


def scale(shift: int) -> bytes:
    return struct.pack(">BBB", 3, 3, shift)


SACK_OK = b"\x04\x02"
NOP = b"\x01"


def sack(*edges: tuple[int, int]) -> bytes:
    return struct.pack(">BB", 5, 2 + 8 * len(edges)) + b"".join(struct.pack(">II", *edge) for edge in edges)


def times(value: int, echo: int) -> bytes:
    return struct.pack(">BBII", 8, 10, value, echo)


def aligned_times(value: int, echo: int) -> bytes:
    return NOP + NOP + times(value, echo)


def mptcp(subtype: int = 2) -> bytes:
    return struct.pack(">BBBB", 30, 4, subtype << 4, 0)


def tcp(
    source: int = 40000,
    destination: int = 80,
    *,
    seq: int = 1000,
    ack: int = 2000,
    flags: int = ACK,
    window: int = 500,
    options: bytes = b"",
    payload: bytes = b"",
    offset: int | None = None,
) -> bytes:
    options += b"\0" * (-len(options) % 4)
    words = (20 + len(options)) // 4 if offset is None else offset
    return (
        struct.pack(">HHIIBBHHH", source, destination, seq, ack, words << 4, flags, window, 0, 0)
        + options
        + payload
    )


def udp(source: int, destination: int, payload: bytes) -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload


# --- IP -------------------------------------------------------------------------------------------------------------


def ipv4(
    payload: bytes,
    source: str = CLIENT,
    destination: str = SERVER,
    *,
    protocol: int = 6,
    options: bytes = b"",
    fragment: int = 0,
    more: bool = False,
    length: int | None = None,
    header: int | None = None,
    version: int = 4,
) -> bytes:
    words = 5 + len(options) // 4 if header is None else header
    total = 20 + len(options) + len(payload) if length is None else length
    return (
        struct.pack(
            ">BBHHHBBH4s4s",
            version << 4 | words,
            0,
            total,
            1,
            fragment | more << 13,
            64,
            protocol,
            0,
            ip_address(source).packed,
            ip_address(destination).packed,
        )
        + options
        + payload
    )


def ipv6(
    payload: bytes,
    source: str = CLIENT_6,
    destination: str = SERVER_6,
    *,
    extensions: Sequence[tuple[int, bytes]] = (),
    protocol: int = 6,
    length: int | None = None,
) -> bytes:
    """``extensions`` are pairs of a header's own number and its bytes behind the first, which names the next one."""
    body = payload
    following = protocol
    for number, rest in reversed(extensions):
        body = bytes([following]) + rest + body
        following = number
    total = len(body) if length is None else length
    return (
        struct.pack(">IHBB", 6 << 28, total, following, 64)
        + ip_address(source).packed
        + ip_address(destination).packed
        + body
    )


HOP_BY_HOP = (0, b"\x00" + bytes(6))
ROUTING = (43, b"\x01" + bytes(14))
DESTINATION = (60, b"\x00" + bytes(6))
AUTHENTICATION = (51, b"\x04" + bytes(22))


def fragment(offset: int = 0, *, more: bool = False) -> tuple[int, bytes]:
    return (44, struct.pack(">BHI", 0, offset << 3 | more, 7))


# --- links ----------------------------------------------------------------------------------------------------------


def ethernet(
    payload: bytes, kind: int = 0x0800, *, tags: Sequence[tuple[int, int]] = (), pad: int = 0
) -> bytes:
    """``tags`` are pairs of a tag's EtherType and its VLAN; frames shorter than ``pad`` are filled up."""
    shim = b"".join(struct.pack(">HH", number, vlan) for number, vlan in tags)
    frame = b"\x02" * 6 + b"\x04" * 6 + shim + struct.pack(">H", kind) + payload
    return frame + b"\xaa" * max(0, pad - len(frame))


def cooked(payload: bytes, kind: int = 0x0800) -> bytes:
    return struct.pack(">HHH8sH", 0, 1, 6, b"\x02" * 8, kind) + payload


def cooked2(payload: bytes, kind: int = 0x0800) -> bytes:
    return struct.pack(">HHIHBB8s", kind, 0, 3, 1, 0, 6, b"\x02" * 8) + payload


def loopback(payload: bytes, family: int = 2, order: str = "<") -> bytes:
    return struct.pack(order + "I", family) + payload


def vxlan(frame: bytes, network: int = 42, port: int = 4789) -> bytes:
    return ethernet(
        ipv4(
            udp(55555, port, struct.pack(">II", 0x08000000, network << 8) + frame),
            "192.0.2.1",
            "192.0.2.2",
            protocol=17,
        )
    )


# --- files ----------------------------------------------------------------------------------------------------------

#: A frame, or a frame and when it was captured (ns), or these and how long it was on the wire.
Entry = bytes | tuple[bytes, int] | tuple[bytes, int, int]
START = 1_700_000_000_000_000_000


def entries(frames: Iterable[Entry]) -> list[tuple[bytes, int, int]]:
    """Frames with a time, 1 ms apart if they have none, and their length on the wire."""
    full = []
    for number, entry in enumerate(frames):
        frame, *rest = (entry,) if isinstance(entry, bytes) else entry
        time_ns = int(rest[0]) if rest else START + number * 1_000_000
        original = int(rest[1]) if len(rest) > 1 else len(frame)
        full.append((frame, time_ns, original))
    return full


def pcap(
    frames: Iterable[Entry],
    link: int = 1,
    *,
    order: str = "<",
    nano: bool = False,
    modified: bool = False,
    snap: int = 262144,
) -> bytes:
    magic = 0xA1B23C4D if nano else 0xA1B2CD34 if modified else 0xA1B2C3D4
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap, link)]
    for frame, time_ns, original in entries(frames):
        seconds, rest = divmod(time_ns, 1_000_000_000)
        parts.append(
            struct.pack(order + "IIII", seconds, rest if nano else rest // 1000, len(frame), original)
            + bytes(8 if modified else 0)
        )
        parts.append(frame)
    return b"".join(parts)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(
    link: int = 1,
    order: str = "<",
    *,
    snap: int = 0,
    name: str | None = None,
    resolution: int | None = None,
    offset_s: int | None = None,
) -> bytes:
    body = struct.pack(order + "HHI", link, 0, snap)
    if name is not None:
        body += option(2, name.encode(), order)
    if resolution is not None:
        body += option(9, bytes([resolution]), order)
    if offset_s is not None:
        body += option(14, struct.pack(order + "q", offset_s), order)
    return block(1, body + option(0, b"", order), order)


def enhanced(
    frame: bytes,
    ticks: int,
    number: int = 0,
    order: str = "<",
    *,
    original: int | None = None,
    captured: int | None = None,
) -> bytes:
    claimed = len(frame) if captured is None else captured
    size = len(frame) if original is None else original
    header = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, claimed, size)
    return block(6, header + frame, order)


def simple(frame: bytes, order: str = "<", *, original: int | None = None) -> bytes:
    return block(3, struct.pack(order + "I", len(frame) if original is None else original) + frame, order)


def obsolete(frame: bytes, ticks: int, number: int = 0, order: str = "<") -> bytes:
    header = struct.pack(order + "HHIIII", number, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(2, header + frame, order)


def pcapng(frames: Iterable[Entry], link: int = 1, order: str = "<") -> bytes:
    blocks = [section(order), interface(link, order)]
    for frame, time_ns, original in entries(frames):
        blocks.append(enhanced(frame, time_ns // 1000, 0, order, original=original))
    return b"".join(blocks)


# --- conversations --------------------------------------------------------------------------------------------------


class Talk:
    """A connection between two ends, frame by frame; each call appends one segment in an Ethernet frame."""

    def __init__(
        self,
        client: str = CLIENT,
        server: str = SERVER,
        ports: tuple[int, int] = (40000, 80),
        *,
        isn: tuple[int, int] = (1000, 5000),
    ) -> None:
        self._ends = (client, server)
        self._ports = ports
        self._next = list(isn)
        self.frames: list[bytes] = []

    def send(
        self, end: int, payload: bytes = b"", *, flags: int = ACK, window: int = 500, options: bytes = b""
    ) -> Talk:
        other = 1 - end
        header = tcp(
            self._ports[end],
            self._ports[other],
            seq=self._next[end] % (1 << 32),
            ack=self._next[other] % (1 << 32) if flags & ACK else 0,
            flags=flags,
            window=window,
            options=options,
            payload=payload,
        )
        wrap = ipv6 if ":" in self._ends[0] else ipv4
        kind = 0x86DD if ":" in self._ends[0] else 0x0800
        self.frames.append(ethernet(wrap(header, self._ends[end], self._ends[other]), kind))
        self._next[end] += len(payload) + bool(flags & SYN) + bool(flags & FIN)
        return self

    def open(self, options: bytes = b"", answer: bytes | None = None) -> Talk:
        self.send(0, flags=SYN, options=options)
        self.send(1, flags=SYN | ACK, options=options if answer is None else answer)
        return self.send(0)

    def close(self) -> Talk:
        return self.send(0, flags=FIN | ACK).send(1, flags=FIN | ACK).send(0)
