"""Writes captures of any length: request and response over many short flows, or bulk transfer over a few long ones.

Sequence numbers, timestamps, options and times are those of real connections; payload is noise, so that nothing
compresses.

    python benchmarks/traffic.py requests 1000000 FILE
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

SYN, ACK, PSH, FIN = 2, 16, 8, 1
ROUNDS = 16
REQUEST, ANSWERS = 180, (240, 600, 1448)
BULK = 1448
#: Packets that are built at once.
BLOCK = 200_000
START = 1_700_000_000 * 10**6
HEADER: list[tuple[str, str]] = [
    ("seconds", "<u4"), ("micros", "<u4"), ("captured", "<u4"), ("original", "<u4"),
    ("macs", "V12"), ("kind", ">u2"),
    ("version", "u1"), ("tos", "u1"), ("total", ">u2"), ("id", ">u2"), ("fragment", ">u2"), ("ttl", "u1"), ("protocol", "u1"),
    ("check", ">u2"), ("source", ">u4"), ("destination", ">u4"),
    ("sport", ">u2"), ("dport", ">u2"), ("seq", ">u4"), ("ack", ">u4"), ("offset", "u1"), ("flags", "u1"), ("window", ">u2"),
    ("tcp_check", ">u2"), ("urgent", ">u2"),
]  # fmt: skip
DATA = np.dtype([*HEADER, ("aligned", ">u4"), ("tsval", ">u4"), ("tsecr", ">u4")])
OPENING = np.dtype(
    [
        *HEADER,
        ("mss", ">u4"),
        ("sack", ">u2"),
        ("times", ">u2"),
        ("tsval", ">u4"),
        ("tsecr", ">u4"),
        ("scale", ">u4"),
    ]
)


def steps(kind: str, size: int) -> NDArray[Any]:
    """One connection: of each packet who sent it (0: client), flags and payload."""
    opening = [(0, SYN, 0), (1, SYN | ACK, 0), (0, ACK, 0)]
    if kind == "requests":
        middle = []
        for number in range(ROUNDS):
            answer = ANSWERS[number % len(ANSWERS)]
            middle += [(0, PSH | ACK, REQUEST), (1, PSH | ACK, answer), (0, ACK, 0)]
    else:
        middle = [(0, PSH | ACK, REQUEST)] + [(1, ACK, BULK), (1, ACK, BULK), (0, ACK, 0)] * ((size - 7) // 3)
    closing = [(0, FIN | ACK, 0), (1, FIN | ACK, 0), (0, ACK, 0)]
    return np.array([*opening, *middle, *closing], np.int64)


def write(kind: str, packets: int, target: BinaryIO) -> None:
    """A capture of this many packets."""
    target.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
    each = steps(kind, max(20, packets // 20))
    flows = -(-packets // len(each))
    concurrent = min(flows, 400)
    # Flows come in waves of `concurrent`; within a wave their packets are shuffled in time, each flow's own in order.
    generator = np.random.default_rng(1)
    written = 0
    for first in range(0, flows, concurrent):
        wave = np.arange(first, min(first + concurrent, flows))
        turns = len(each) * len(wave)
        order = np.argsort(
            (
                np.arange(len(each))[None, :]
                + generator.random((len(wave), 1))
                + generator.random((len(wave), len(each))) * 0.9
            ).ravel()
        )
        for begin in range(0, turns, BLOCK):
            chosen = order[begin : begin + BLOCK][: packets - written]
            if len(chosen):
                _write_block(each, wave[chosen // len(each)], chosen % len(each), written, target, generator)
            written += len(chosen)


def _write_block(
    each: NDArray[Any],
    flow: NDArray[Any],
    step: NDArray[Any],
    before: int,
    target: BinaryIO,
    generator: np.random.Generator,
) -> None:
    back = each[step, 0] == 1
    flags, payload = each[step, 1], each[step, 2]
    taken = each[:, 2] + ((each[:, 1] & (SYN | FIN)) != 0)
    sent = [np.concatenate([[0], np.cumsum(np.where(each[:, 0] == end, taken, 0))]) for end in (0, 1)]
    isn = (flow * 2_654_435_761) % (1 << 32)
    client_next, server_next = isn + sent[0][step], isn * 7 + sent[1][step]
    opening = (flags & SYN) != 0
    header = np.where(opening, OPENING.itemsize, DATA.itemsize)
    size = header + payload
    at = np.cumsum(size) - size
    out = generator.integers(0, 256, int(size.sum()) + OPENING.itemsize, np.uint8)
    micros = START + (before + np.arange(len(flow))) * 20
    client, server = 0x0A000000 + flow // 30_000, 0x0A640001
    port = 32768 + flow % 28_000
    for kind, which in ((DATA, ~opening), (OPENING, opening)):
        rows = np.zeros(np.count_nonzero(which), kind)

        def choose(there: Any, here: Any, which: NDArray[Any] = which) -> NDArray[Any]:
            return np.where(back, there, here)[which]

        rows["seconds"], rows["micros"] = np.divmod(micros[which], 10**6)
        rows["captured"] = rows["original"] = (size - 16)[which]
        rows["kind"], rows["version"], rows["ttl"], rows["protocol"] = 0x0800, 0x45, 64, 6
        rows["total"] = (size - 30)[which]
        rows["source"], rows["destination"] = choose(server, client), choose(client, server)
        rows["sport"], rows["dport"] = choose(443, port), choose(port, 443)
        rows["seq"] = choose(server_next, client_next) % (1 << 32)
        rows["ack"] = choose(client_next, server_next) % (1 << 32) * ((flags & ACK) != 0)[which]
        rows["offset"], rows["flags"], rows["window"] = (kind.itemsize - 50) << 2, flags[which], 501
        rows["tsval"], rows["tsecr"] = (
            (micros // 1000 % (1 << 32))[which],
            (micros // 1000 % (1 << 32) - 1)[which],
        )
        if kind is DATA:
            rows["aligned"] = 0x0101080A
        else:
            rows["mss"], rows["sack"], rows["times"], rows["scale"] = 0x020405B4, 0x0402, 0x080A, 0x01030307
        view = np.ndarray((len(out) - kind.itemsize + 1,), f"V{kind.itemsize}", out.data, 0, (1,))
        view[at[which]] = rows.view(f"V{kind.itemsize}")
    target.write(out[: int(size.sum())].data)


def main() -> int:
    kind, packets, path = sys.argv[1:]
    with Path(path).open("wb") as target:
        write(kind, int(packets), target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
