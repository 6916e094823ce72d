"""The capture again, with comments: everything else is as it was, and it is written whole or not at all."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess

import pytest
from tests import recordings
from tests.unit.capture_files import frames, pcap, pcapng, standoffs
from tests.unit.packets import block, option

from ackward import analyze
from ackward.capture import framing
from ackward.capture.sources import find
from ackward.diagnosis.comments import MOST_A_PACKET, Comments
from ackward.diagnosis.diagnose import diagnose
from ackward.errors import OutputFailed, UsageError

ENHANCED, COMMENT = 6, 1
END = option(0, b"")
#: Blocks that we do not know, and statistics: they must come through.
UNKNOWN = block(0x80000BAD, b"whatever") + block(5, struct.pack("<III", 0, 0, 0))

CAPTURES = {
    "pcap": pcap(standoffs()),
    "pcap-big-endian": pcap(standoffs(), ">"),
    "pcap-nanoseconds": pcap(standoffs(), nanoseconds=True),
    "pcap-cut-packets": pcap(standoffs(), snap=60),
    "pcapng": pcapng(standoffs()),
    "pcapng-big-endian": pcapng(standoffs(), ">", 6),
    "pcapng-section-length": pcapng(standoffs(), section_length=None),
    "pcapng-options": pcapng(standoffs(), options=option(COMMENT, b"from the customer") + END),
    "pcapng-options-without-end": pcapng(standoffs(), options=option(2, struct.pack("<I", 1))),
    "pcapng-other-blocks": pcapng(standoffs(), before=UNKNOWN, behind=UNKNOWN),
    "two-sections": pcapng(standoffs(2)) + pcapng(standoffs(3), ">", 6, None, later_ns=10**10),
}
#: Packets of four standoffs from 0: the first piece, the late ACK and the second piece of each request.
STALLED = [[3 + 4 * n, 4 + 4 * n, 5 + 4 * n] for n in range(4)]


def flat(groups):
    return [number for group in groups for number in group]


@pytest.fixture
def annotated(tmp_path):
    """Annotates a capture and gives its bytes."""

    def run(*captures):
        names = []
        for number, content in enumerate(captures):
            names.append(tmp_path / f"in{number}")
            names[-1].write_bytes(content)
        out = tmp_path / "out.pcapng"
        out.unlink(missing_ok=True)  # no capture is replaced
        analyze(names, annotated=out)
        assert [name.read_bytes() for name in names] == list(captures)
        return out.read_bytes()

    return run


def blocks(content):
    """(byte order, type, body) of each block."""
    order, at, found = "<", 0, []
    while at < len(content):
        if content[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if content[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
        kind, length = struct.unpack_from(order + "II", content, at)
        assert struct.unpack_from(order + "I", content, at + length - 4) == (length,)
        found.append((order, kind, content[at + 8 : at + length - 4]))
        at += length
    return found


def options(order, body):
    """The options of an enhanced packet block, up to its end."""
    (captured,) = struct.unpack_from(order + "I", body, 12)
    at, found = 20 + (captured + 3) // 4 * 4, []
    while at < len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        found.append((code, body[at + 4 : at + 4 + length]))
        at += 4 + (length + 3) // 4 * 4
    return found


def comments(content):
    """The texts that ackward wrote, by number of the packet."""
    packets = [(order, body) for order, kind, body in blocks(content) if kind == ENHANCED]
    found = {}
    for number, (order, body) in enumerate(packets):
        texts = [value.decode() for code, value in options(order, body) if code == COMMENT]
        if ours := [text for text in texts if text.startswith("ackward: ")]:
            found[number] = ours
    return found


def without_comments(content):
    """The blocks as they were before."""
    plain = []
    for order, kind, body in blocks(content):
        if kind == 0x0A0D0D0A:
            body = body[:8] + struct.pack(order + "q", -1) + body[16:]
        if kind == ENHANCED:
            (captured,) = struct.unpack_from(order + "I", body, 12)
            kept = [
                entry
                for entry in options(order, body)
                if not (entry[0] == COMMENT and entry[1].startswith(b"ackward: "))
            ]
            kept = [] if kept == [(0, b"")] else kept
            body = body[: 20 + (captured + 3) // 4 * 4] + b"".join(option(*entry, order) for entry in kept)
        plain.append((order, kind, body))
    return plain


def packets(*names):
    """(time, interface's link, lengths, bytes) of all packets that we read from these files."""
    found = []
    for source in find(names):
        with source.open() as stream:
            for chunk in framing.Framing(source, stream):
                seen = chunk.frames
                columns = (seen.time_ns, seen.link, seen.original, seen.start, seen.captured)
                for time_ns, link, original, start, captured in zip(
                    *(c.tolist() for c in columns), strict=True
                ):
                    found.append(
                        (time_ns, link, original, chunk.octets.raw[start : start + captured].tobytes())
                    )
    return found


@pytest.mark.parametrize("name", CAPTURES)
def test_packets_are_as_they_were(annotated, tmp_path, name):
    content = annotated(CAPTURES[name])
    assert packets(tmp_path / "out.pcapng") == packets(tmp_path / "in0")
    assert len(comments(content)) >= 12


@pytest.mark.parametrize(
    "name", [name for name in CAPTURES if not name.startswith("pcap-") and name != "pcap"]
)
def test_all_blocks_of_a_pcapng_are_as_they_were(annotated, name):
    assert without_comments(annotated(CAPTURES[name])) == without_comments(CAPTURES[name])


def test_the_comments_say_what_happened(annotated):
    told = comments(annotated(CAPTURES["pcapng"]))
    assert sorted(told) == flat(STALLED)
    first, late, second = STALLED[1]
    assert told[first][0].startswith("ackward: standoff begins: 41.0")
    assert "inferred, client holds, server delays, exchange 1" in told[first][0]
    assert told[late][0].startswith("ackward: evidence of standoff")
    assert told[second][0].startswith("ackward: standoff ends")


def test_comments_stand_beside_those_of_others(annotated):
    content = annotated(CAPTURES["pcapng-options"])
    [(order, body), *_] = [(o, b) for o, k, b in blocks(content) if k == ENHANCED and b"ackward: " in b]
    assert [code for code, _ in options(order, body)] == [COMMENT, COMMENT, 0]
    assert options(order, body)[1][1] == b"from the customer"


def test_a_healthy_capture_is_copied_byte_by_byte(annotated):
    content = pcapng(standoffs(0), before=UNKNOWN)
    assert annotated(content) == content


def test_snap_length_and_clock_of_a_pcap_are_kept(annotated):
    for name, resolution, snap in (("pcap-nanoseconds", 9, 65535), ("pcap-cut-packets", 6, 60)):
        _, (order, kind, body), *_ = blocks(annotated(CAPTURES[name]))
        assert kind == 1
        assert struct.unpack_from(order + "HHI", body) == (1, 0, snap)
        assert body[8:] == option(9, bytes([resolution]), order) + END


def test_several_inputs_become_sections(annotated, tmp_path):
    other = standoffs(2)
    content = annotated(CAPTURES["pcap"], pcapng(other, ">"))
    assert [kind for _, kind, _ in blocks(content)].count(0x0A0D0D0A) == 2
    assert len(packets(tmp_path / "out.pcapng")) == len(frames(standoffs())) + len(frames(other))
    assert packets(tmp_path / "out.pcapng") == packets(tmp_path / "in0", tmp_path / "in1")


def test_a_file_that_was_left_out_leaves_the_numbers_right(annotated):
    """Packets are numbered over all readable files: what cannot be read must not shift them."""
    content = annotated(b"this is no capture at all", CAPTURES["pcapng"])
    assert sorted(comments(content)) == flat(STALLED)


@pytest.mark.parametrize("size", [700, 1000, 1500])
@pytest.mark.parametrize("name", CAPTURES)
def test_small_chunks_give_the_same(annotated, monkeypatch, name, size):
    whole = annotated(CAPTURES[name])
    monkeypatch.setattr(framing, "CHUNK", size)
    assert annotated(CAPTURES[name]) == whole


@pytest.mark.parametrize("name", ["pcap", "pcapng"])
def test_a_cut_capture_gives_what_can_be_read(annotated, name):
    """Cut within its last two packets, behind the first three stalls."""
    whole = CAPTURES[name]
    seen = set()
    for size in range(len(whole) - 300, len(whole), 11):
        content = annotated(whole[:size])
        assert sorted(comments(content))[:9] == flat(STALLED[:3])
        seen.add(len(blocks(content)))
    assert max(seen) < len(blocks(annotated(whole)))


def test_a_capture_is_never_overwritten(tmp_path):
    capture, link, other = tmp_path / "a.pcapng", tmp_path / "link.pcapng", tmp_path / "hard.pcapng"
    capture.write_bytes(CAPTURES["pcapng"])
    link.symlink_to(capture)
    os.link(capture, other)
    for out in (capture, link, other, tmp_path / "." / "a.pcapng"):
        with pytest.raises(UsageError, match="one of the captures"):
            analyze([capture], annotated=out)
    assert capture.read_bytes() == CAPTURES["pcapng"]


def test_what_can_be_read_once_is_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name in ("-", pipe):
        with pytest.raises(UsageError, match="only once"):
            analyze([name], annotated=tmp_path / "out.pcapng")


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """The disk is full in the middle: the file of before stays, and nothing else is left."""
    capture, out = tmp_path / "a.pcap", tmp_path / "out.pcapng"
    capture.write_bytes(CAPTURES["pcap"])
    out.write_bytes(b"from before")

    def failing(*_):
        yield b"some"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ackward.loop.annotating.annotated", failing)
    with pytest.raises(OutputFailed, match="No space left"):
        analyze([capture], annotated=out)
    assert out.read_bytes() == b"from before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pcap", "out.pcapng"]


def test_no_directory_for_it(tmp_path):
    capture = tmp_path / "a.pcap"
    capture.write_bytes(CAPTURES["pcap"])
    with pytest.raises(OutputFailed, match="No such file"):
        analyze([capture], annotated=tmp_path / "missing" / "out.pcapng")


def test_live_recordings_have_no_packets_to_comment_on():
    seen = diagnose(recordings.load("standoff-both"))
    assert len(Comments.of(seen.attribution)) == 0


def test_a_packet_gets_few_lines(tmp_path):
    """A packet may be the evidence of any number of stalls."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(standoffs(20)))
    seen = analyze([path])
    told = Comments.of(seen.attribution)
    crowded = Comments(told.parts, told.packet * 0 + 7, told.part, told.role)
    assert crowded.between(0, 7) == {}
    assert crowded.between(7, 8)[7].count("\n") == MOST_A_PACKET - 1


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed (apt-get install tshark)")
@pytest.mark.parametrize("name", CAPTURES)
def test_wireshark_shows_them(annotated, tmp_path, name):
    """The comments are beside the packets, and it sees no other difference."""

    def tshark(path, *arguments):
        done = subprocess.run(
            ["tshark", "-r", path, *arguments], capture_output=True, text=True, check=True, timeout=120
        )
        return done.stdout.splitlines()

    annotated(CAPTURES[name])
    shown = tshark(tmp_path / "out.pcapng", "-Y", "frame.comment contains ackward", "-T", "fields",
                   "-e", "frame.number", "-e", "frame.comment")  # fmt: skip
    assert len(shown) >= 12
    assert any("ackward: standoff begins: 41.0" in line for line in shown)
    fields = [
        "frame.number",
        "frame.time_epoch",
        "frame.len",
        "frame.cap_len",
        "frame.encap_type",
        "tcp.seq_raw",
    ]
    wanted = ["-T", "fields", *(word for field in fields for word in ("-e", field))]
    for arguments in (wanted, ["-x"]):
        assert tshark(tmp_path / "out.pcapng", *arguments) == tshark(tmp_path / "in0", *arguments)
