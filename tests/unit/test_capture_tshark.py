"""tshark and ackward see the same packets: numbers, lengths, windows, flags, options and times of each of them.

Where they differ on purpose: tshark would count sequence numbers from 0 and put IP fragments together, unless
told not to;
of a first fragment alone it gives no length, and neither of a packet whose IP header gives none (offload).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests import captures
from tests.unit import packets as p
from tests.unit.test_capture_formats import FILES
from tests.unit.test_capture_headers import SHAPES

from ackward.capture.reading import read_captures
from ackward.capture.sources import find

pytestmark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")

#: tshark's field -> the column
FIELDS = {
    "tcp.seq_raw": "seq",
    "tcp.ack_raw": "ack",
    "tcp.len": "bytes",
    "tcp.window_size": "window",
    "tcp.flags": "tcp_flags",
    "tcp.options.timestamp.tsval": "tsval",
    "tcp.options.timestamp.tsecr": "tsecr",
    "tcp.options.sack_le": "sack_left",
    "tcp.options.sack_re": "sack_right",
}
OPTIONS = ("tcp.relative_sequence_numbers:FALSE", "ip.defragment:FALSE", "ipv6.defragment:FALSE")


def by_tshark(path: Path) -> dict[int, tuple[int, ...]]:
    """Packet number -> its columns and its time, of each packet in which tshark sees TCP; the innermost one."""
    argv = [
        "tshark",
        "-n",
        "-r",
        str(path),
        "-Y",
        "tcp",
        "-T",
        "fields",
        "-E",
        "occurrence=l",
        "-e",
        "frame.number",
    ]
    for preference in OPTIONS:
        argv += ["-o", preference]
    for field in (*FIELDS, "frame.time_epoch"):
        argv += ["-e", field]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    packets = {}
    for line in done.stdout.splitlines():
        number, *values, time = line.split("\t")
        seconds, _, fraction = time.partition(".")
        time_ns = int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
        packets[int(number) - 1] = (*(int(value or "0", 0) for value in values), time_ns)
    return packets


def by_us(path: Path, vxlan: int | None) -> dict[int, tuple[int, ...]]:
    found = read_captures(find([path]), vxlan=vxlan)
    columns = [found.segments[name].tolist() for name in (*FIELDS.values(), "time_ns")]
    return dict(zip(found.segments["packet"].tolist(), zip(*columns, strict=True), strict=True))


def same(path: Path, vxlan: int | None = 4789) -> int:
    theirs, ours = by_tshark(path), by_us(path, vxlan)
    assert ours == theirs
    return len(ours)


@pytest.mark.parametrize("path", captures.names(), ids=lambda path: path.name)
def test_real_captures(path: Path) -> None:
    assert same(path) > 5


@pytest.mark.parametrize("name", FILES)
def test_formats(tmp_path: Path, name: str) -> None:
    path = tmp_path / "capture"
    path.write_bytes(FILES[name])
    assert same(path) == 8


@pytest.mark.parametrize("link", sorted({link for link, *_ in SHAPES.values()} - {12, 14}))
def test_shapes(tmp_path: Path, link: int) -> None:
    """Every layer, whole, filled up, and cut at some places behind the header.

    (12 and 14 are other links elsewhere.)
    """
    entries: list[p.Entry] = []
    for name, (its, frame, size) in SHAPES.items():
        if its == link and "length" not in name and "fragment" not in name:
            entries += [frame, (frame[: len(frame) - size + 7], p.START, len(frame))]
            entries += [frame + b"\xaa" * 9] if link == 1 else []
    path = tmp_path / "capture"
    path.write_bytes(p.pcap(entries, link))
    assert same(path) == len(entries)


def test_options_offload_and_conversations(tmp_path: Path) -> None:
    frames = p.Talk().open(p.mss(1460) + p.SACK_OK + p.times(1, 0) + p.NOP + p.scale(7)).frames
    talk = p.Talk(p.CLIENT_6, p.SERVER_6).open(p.mptcp(0))
    talk.send(0, b"x" * 30000, options=p.mptcp(2)).send(1, options=p.NOP * 2 + p.sack((1, 2), (3, 4))).send(
        0, flags=4
    )
    last = p.Talk().send(1, options=p.NOP * 2 + p.sack((7, 9))).close()
    path = tmp_path / "capture"
    path.write_bytes(p.pcapng([*frames, *talk.frames, *last.frames]))
    theirs, ours = by_tshark(path), by_us(path, None)
    # tshark was asked for the last SACK block of several, we keep the first.
    for packet, row in ours.items():
        if row[7:9] == (1, 2):
            ours[packet] = (*row[:7], 3, 4, *row[9:])
    assert ours == theirs
