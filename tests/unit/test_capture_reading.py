"""What the user names -> segments: files, directories, patterns, standard input, compression, and bad ones among good ones."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import lz4.frame
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.unit import packets as p

from ackward.capture import reading
from ackward.capture.frames import Frames
from ackward.capture.reading import WireCapture, read_captures
from ackward.capture.sources import find
from ackward.errors import UnknownName, UsageError

FRAMES = p.Talk().open().send(0, b"question", flags=24).send(1, b"answer" * 40, flags=24).close().frames
CAPTURE = p.pcap(FRAMES)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip, two members": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
    "zstd": zstandard.compress,
    "zstd, two frames": lambda data: zstandard.compress(data[:100]) + zstandard.compress(data[100:]),
    "lz4": lz4.frame.compress,
    "lz4, two frames": lambda data: lz4.frame.compress(data[:100]) + lz4.frame.compress(data[100:]),
}


def read(*names: object, **options: object) -> WireCapture:
    return read_captures(find([str(name) for name in names]), **options)  # type: ignore[arg-type]


# --- naming -----------------------------------------------------------------------------------------------------


def test_names_stand_for_files_in_order(tmp_path: Path) -> None:
    for name in ("dump10", "dump9", "dump1", ".hidden", "other"):
        (tmp_path / name).write_bytes(CAPTURE)
    (tmp_path / "below").mkdir()
    assert [source.path.name for source in find([tmp_path])] == ["dump1", "dump9", "dump10", "other"]
    assert [source.path.name for source in find([tmp_path / "dump*"])] == ["dump1", "dump9", "dump10"]
    named = find([tmp_path / "other", tmp_path / "dump9", tmp_path, "-"])
    assert [source.name.rpartition("/")[2] for source in named] == [
        "other",
        "dump9",
        "dump1",
        "dump10",
        "standard input",
    ]
    strange = tmp_path / "a[1]*?.pcap"
    strange.write_bytes(CAPTURE)
    assert find([strange])[0].path == strange


def test_names_that_stand_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "missing", tmp_path / "*.pcap", tmp_path / "empty"):
        with pytest.raises(UnknownName) as raised:
            find([name])
        assert str(name) in str(raised.value)
        assert "Next:" in str(raised.value)
    with pytest.raises(UsageError):
        find([])


# --- compression ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPRESS)
def test_compressed(tmp_path: Path, name: str) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(CAPTURE)
    packed.write_bytes(COMPRESS[name](CAPTURE))
    found = read(packed)
    assert (found.segments == read(plain).segments).all()
    assert not found.problems


@pytest.mark.parametrize("name", COMPRESS)
def test_compressed_and_cut_at_every_byte(tmp_path: Path, name: str) -> None:
    """The readable part is read, the rest reported: a cut is never silent, unless it falls between two whole parts."""
    packed = COMPRESS[name](CAPTURE)
    path = tmp_path / "packed"
    whole = len(FRAMES)
    kept = []
    for size in range(len(packed)):
        path.write_bytes(packed[:size])
        try:
            found = read(path)
        except UsageError as error:
            assert str(path) in str(error)
            continue
        kept.append(len(found.segments))
        if len(found.segments) < whole:
            assert found.problems, size
    assert kept == sorted(kept)


@pytest.mark.parametrize("name", ["gzip", "zstd", "lz4"])
def test_compressed_and_damaged_at_every_byte(tmp_path: Path, name: str) -> None:
    packed = COMPRESS[name](CAPTURE)
    path = tmp_path / "packed"
    whole = len(FRAMES)
    for at in range(len(packed)):
        path.write_bytes(packed[:at] + bytes([packed[at] ^ 0x55]) + packed[at + 1 :])
        try:
            found = read(path)
        except UsageError as error:
            assert str(path) in str(error)
            continue
        assert len(found.segments) <= whole


def test_a_bomb_is_read_as_a_stream(tmp_path: Path) -> None:
    """Behind a capture 192 MiB of nothing, in packets of 256 KiB that compress to almost none: memory stays that of a chunk."""
    path = tmp_path / "bomb"
    with gzip.open(path, "wb", compresslevel=1) as bomb:
        bomb.write(CAPTURE)
        for _ in range(768):
            bomb.write(p.pcap([bytes(1 << 18)])[24:])
    code = (
        "import resource, sys\nfrom ackward.capture.reading import read_captures\nfrom ackward.capture.sources import find\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nfound = read_captures(find(sys.argv[1:]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, len(found.segments), found.skipped)"
    )
    grown, segments, *skipped = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    assert int(segments) == len(FRAMES)
    assert skipped[-1] == "768}"
    assert int(grown) < 40_000


# --- standard input and pipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [CAPTURE, gzip.compress(CAPTURE), zstandard.compress(CAPTURE), lz4.frame.compress(CAPTURE)]
)
def test_a_pipe_that_dribbles(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def dribble() -> None:
        with path.open("wb", buffering=0) as pipe:
            for at in range(0, len(data), 3):
                pipe.write(data[at : at + 3])

    writer = threading.Thread(target=dribble)
    writer.start()
    found = read(path)
    writer.join()
    assert len(found.segments) == len(FRAMES)
    assert not found.problems


def test_standard_input() -> None:
    code = (
        "from ackward.capture.reading import read_captures\nfrom ackward.capture.sources import find\n"
        "found = read_captures(find(['-']))\nprint(len(found.segments), found.packets)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=CAPTURE, capture_output=True, check=True)
    assert done.stdout.decode().strip() == f"{len(FRAMES)} {{'standard input': {len(FRAMES)}}}"


def test_reading_needs_nothing_of_linux() -> None:
    """Reading files must work on any system: nothing of the live part is loaded, and ctypes loads no library."""
    code = (
        "import sys\nimport ackward.capture.reading\n"
        "print(*[name for name in sys.modules if name.startswith(('ackward.kernel', 'ackward.capture.live', 'pyroute2'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- several files, and bad ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty. Nothing"),
        (b"\xd4\xc3", "it is not a capture (it begins with d4 c3). Nothing"),
        (p.pcap([])[:10], "it ends inside the file header. Nothing"),
        (b"hello, world, this is text", "it is not a capture (it begins with 68 65 6c 6c). Nothing"),
        (zstandard.compress(bytes(range(256)) * 8)[:20], "nothing in it could be decompressed. Nothing"),
        (
            b'{\n  "schema": "ackward/report/1",\n',
            "it is a report and no capture. Nothing was read. Next: `ackward compare",
        ),
        (b'{"schema": "ackward/prediction/1"}', "it is JSON and no capture. Nothing"),
        (gzip.compress(b"hello, world", mtime=0), "it is not a capture (it begins with 68 65 6c 6c)"),
        (b"\x1f\x8b garbage", "cannot be read any further"),
    ],
)
def test_nothing_readable_is_an_error(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises(UsageError) as raised:
        read(path)
    assert words in str(raised.value)
    assert str(path) in str(raised.value)
    assert "Next:" in str(raised.value)
    assert raised.value.exit_code == 2


def test_of_many_bad_files_the_first_are_named(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"bad{number}").write_bytes(b"what is this")
    with pytest.raises(UsageError) as raised:
        read(tmp_path)
    told = str(raised.value)
    assert [name for name in ("bad0", "bad1", "bad2", "bad3") if name in told] == ["bad0", "bad1", "bad2"]
    assert "; and 3 more. Nothing was read" in told


def test_a_file_that_may_not_be_read_wants_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything: so the kernel's answer to others is made up."""

    def refused(path: Path, mode: str) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "theirs"
    path.write_bytes(CAPTURE)
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(
        UsageError, match=r"Permission denied\. .* Next: let its owner make it readable for you"
    ):
        read(path)


def test_an_empty_capture_is_no_error(tmp_path: Path) -> None:
    for data in (p.pcap([]), p.pcapng([]), p.section()):
        (tmp_path / "empty").write_bytes(data)
        found = read(tmp_path / "empty")
        assert len(found.segments) == len(found.flows) == 0
        assert [problem.what for problem in found.problems] == ["it holds no packets"]


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(p.pcap(FRAMES[:3]))
    (tmp_path / "b").write_bytes(b"what is this")
    (tmp_path / "c").write_bytes(p.pcapng([(frame, p.START + 10**9) for frame in FRAMES[3:]])[:-5])
    found = read(tmp_path)
    assert len(found.segments) == len(FRAMES) - 1
    assert len(found.flows) == 1
    assert [source.name for source in found.sources] == [str(tmp_path / "a"), str(tmp_path / "c")]
    bad, cut = found.problems
    assert (bad.file, bad.offset) == (str(tmp_path / "b"), None)
    assert cut.file == str(tmp_path / "c")
    assert "ends in the middle of a packet" in str(cut)
    assert "it was read up to there" in str(cut)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(UsageError, match=r"cannot be read: No such device or address"):
            read(path)
        (tmp_path / "good").write_bytes(CAPTURE)
        found = read(path, tmp_path / "good")
    assert len(found.segments) == len(FRAMES)
    assert [problem.file for problem in found.problems] == [str(path)]


def test_a_ring_of_files_is_one_capture(tmp_path: Path) -> None:
    """Given in any order, a flow's segments come out by time; packets are numbered through, in the order of the files."""
    entries = [(frame, p.START + number * 1000) for number, frame in enumerate(FRAMES)]
    (tmp_path / "a").write_bytes(p.pcap(entries[4:]))
    (tmp_path / "b").write_bytes(p.pcap(entries[:4]))
    found = read(tmp_path)
    assert found.segments["time_ns"].tolist() == [entry[1] for entry in entries]
    late = len(entries) - 4
    assert found.segments["packet"].tolist() == [*range(late, late + 4), *range(late)]
    assert [source.first_packet for source in found.sources] == [0, late]
    assert found.packets == {str(tmp_path / "a"): late, str(tmp_path / "b"): 4}
    assert found.flows[0].role_seen
    assert not found.problems


def test_times_that_go_back_keep_the_order_of_the_file(tmp_path: Path) -> None:
    entries = [(frame, p.START - number * 10**9) for number, frame in enumerate(FRAMES)]
    (tmp_path / "a").write_bytes(p.pcap(entries))
    found = read(tmp_path / "a")
    assert found.segments["packet"].tolist() == list(range(len(FRAMES)))
    assert "goes back" in found.problems[0].what
    flow = found.flows[0]
    assert (flow.first_ns, flow.last_ns) == (entries[-1][1], p.START)


def frames_of(times: list[tuple[int, int]]) -> Frames:
    """Frames of these interfaces at these times, one octet long."""
    interface, time = np.array(times).T
    place, one = np.arange(len(times)), np.ones(len(times), np.int64)
    link = np.ones(len(times), np.int32)
    return Frames(
        place, one, one, time, link, interface.astype(np.int32), place, np.zeros(len(times), np.uint8)
    )


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1), max_size=4))
def test_a_clock_is_watched_for_each_interface(chunks: list[list[tuple[int, int]]]) -> None:
    clock, last, steps = reading._Clock(), {}, []
    for chunk in chunks:
        clock.watch(frames_of(chunk), 0)
        for interface, time in chunk:
            steps.append(last.get(interface, time) - time)
            last[interface] = time
    back = [step for step in steps if step > 0]
    told = [problem.what for problem in clock.problems("a")]
    assert told == (
        [f"the clock goes back (times: {len(back)}), by up to {max(back) / 1e9:.9f} s"] if back else []
    )


def test_many_interfaces_are_no_more_work(tmp_path: Path) -> None:
    """As many calls for 20,000 interfaces in a chunk as for two: each goes through all frames at once."""

    def calls(interfaces: int) -> int:
        frames, count = frames_of([(number % interfaces, number) for number in range(20_000)]), 0

        def counted(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        clock = reading._Clock()
        sys.setprofile(counted)
        try:
            clock.watch(frames, 0)
        finally:
            sys.setprofile(None)
        return count

    assert calls(20_000) <= calls(2)


def test_progress_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(CAPTURE))
    told: list[tuple[str, int, int | None]] = []
    read(path, progress=lambda *news: told.append(news))
    size = path.stat().st_size
    assert told
    assert told[-1] == (str(path), size, size)


def test_a_host_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CAPTURE)
    with pytest.raises(UsageError, match="is not an IP address"):
        read(tmp_path / "a", host="example")


def test_many_flows_in_many_chunks(tmp_path: Path) -> None:
    """Connections that come and go through all of a long file stay whole, however it falls into chunks."""
    count = 3000
    frames: list[p.Entry] = []
    for number in range(count):
        talk = p.Talk(f"10.1.{number % 250}.1", ports=(20000 + number, 80), isn=(number, number + 5)).open()
        talk.send(0, bytes(200), flags=24).send(1, bytes(1000), flags=24).close()
        frames += [(frame, p.START + (number + 40 * step) * 1000) for step, frame in enumerate(talk.frames)]
    frames.sort(key=lambda entry: entry[1])
    path = tmp_path / "many"
    path.write_bytes(p.pcap(frames))
    found = read(path)
    assert len(found.flows) == count
    assert found.flows.table["role_seen"].all()
    assert (found.flows.table["count"] == 8).all()
    assert (np.diff(found.flows.table["first_ns"]) >= 0).all()
    assert found.segments["bytes"].sum() == count * 1200
