"""tshark and ackward see the same packets: numbers, lengths, windows, flags, options and times of each of them; and they
count the same of each connection: bytes, segments, data sent again, round trips.

Where they differ on purpose: tshark would count sequence numbers from 0 and put IP fragments together, unless told not to;
of a first fragment alone it gives no length, and neither of a packet whose IP header gives none (offload). Of connections,
`docs/captures.md` says where and why, and the exceptions below are checked one by one.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests import captures
from tests.unit import packets as p
from tests.unit.test_capture_formats import FILES
from tests.unit.test_capture_headers import SHAPES

from ackward.capture.reading import read_captures
from ackward.capture.sources import find
from ackward.diagnosis.diagnose import Diagnosis
from ackward.diagnosis.measures import Measures, acknowledged, measured, sent_again
from ackward.loop.analyzing import analyze
from ackward.model.segments import Kind

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


def fields_of(path: Path, *names: str) -> dict[int, list[str]]:
    """Packet number -> these fields of each packet in which tshark sees TCP; the innermost ones."""
    argv = ["tshark", "-n", "-r", str(path), "-Y", "tcp", "-T", "fields", "-E", "occurrence=l"]
    for preference in OPTIONS:
        argv += ["-o", preference]
    for field in ("frame.number", *names):
        argv += ["-e", field]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    lines = (line.split("\t") for line in done.stdout.splitlines())
    return {int(number) - 1: values for number, *values in lines}


def nanoseconds(seconds: str) -> int:
    whole, _, fraction = seconds.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0"))


def by_tshark(path: Path) -> dict[int, tuple[int, ...]]:
    """Packet number -> its columns and its time."""
    return {
        packet: (*(int(value or "0", 0) for value in values), nanoseconds(time))
        for packet, (*values, time) in fields_of(path, *FIELDS, "frame.time_epoch").items()
    }


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


# --- connections ----------------------------------------------------------------------------------------------------

#: What tshark calls data that was sent again, whatever it holds to be the reason; ackward counts them together.
AGAIN = [
    f"tcp.analysis.{name}"
    for name in ("retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order")
]
#: One capture at several interfaces: the same packets many times.
COPIES = "interfaces.pcapng"


class Ours:
    """What ackward says of one capture, by packet number."""

    def __init__(self, path: Path) -> None:
        seen: Diagnosis = analyze([path], vxlan=4789)
        [stretch] = seen.attribution.stretches()
        timeline = stretch.timeline
        self.flows = list(timeline.flows)
        self.packet: list[int] = timeline.segments["packet"].tolist()
        self.flow = dict(zip(self.packet, timeline.segments["flow"].tolist(), strict=True))
        self.time = dict(zip(self.packet, timeline.time.tolist(), strict=True))
        self.to_server = dict(zip(self.packet, timeline.segments["to_server"].tolist(), strict=True))
        self.bytes = dict(zip(self.packet, timeline.segments["bytes"].tolist(), strict=True))
        self.left = {
            packet
            for packet, kind in zip(self.packet, timeline.segments["kind"].tolist(), strict=True)
            if kind == Kind.SENT
        }
        again = sent_again(timeline)
        self.again = {self.packet[row] for row in again.nonzero()[0]}
        data, ack = acknowledged(timeline, again)
        self.acks = {self.packet[late]: self.packet[early] for early, late in zip(data, ack, strict=True)}
        self.measures: Measures = measured(timeline, len(self.flows))


CONNECTIONS = [
    *(path for path in captures.names() if path.name != COPIES),
    *sorted((captures.DIRECTORY.parent / "corpus").glob("*.pcap")),
]


@pytest.fixture(scope="module")
def told() -> Iterator[dict[Path, Future[dict[int, list[str]]]]]:
    """What tshark says of each capture. It takes long to start: so it is asked beside the tests."""
    pool = ThreadPoolExecutor()
    names = ("tcp.stream", "tcp.len", "frame.time_epoch", "tcp.analysis.initial_rtt", "tcp.analysis.acks_frame",
             "tcp.analysis.ack_rtt", *AGAIN)  # fmt: skip
    yield {path: pool.submit(fields_of, path, *names) for path in CONNECTIONS}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("path", CONNECTIONS, ids=lambda path: path.name)
def test_connections(path: Path, told: dict[Path, Future[dict[int, list[str]]]]) -> None:
    ours, theirs = Ours(path), told[path].result()
    stream = {packet: int(fields[0]) for packet, fields in theirs.items()}
    names = {ours.flow[packet]: stream[packet] for packet in ours.packet}
    assert stream == {packet: names[flow] for packet, flow in ours.flow.items()}
    assert len(set(names.values())) == len(ours.flows)

    # Bytes and segments each way: tshark's own, summed up by flow.
    sizes: Counter[tuple[int, bool]] = Counter()
    for packet, fields in theirs.items():
        sizes[ours.flow[packet], ours.to_server[packet]] += int(fields[1])
    for number, flow in enumerate(ours.flows):
        assert (flow.bytes_to_server, flow.bytes_to_client) == (sizes[number, True], sizes[number, False])

    # Retransmissions, packet by packet.
    assert ours.again == {packet for packet, fields in theirs.items() if any(fields[6:])}
    counts = Counter(ours.flow[packet] for packet in ours.again)
    assert ours.measures.retransmissions.tolist() == [counts[number] for number in range(len(ours.flows))]

    # The round trip of the handshake, to the nanosecond.
    trips = {ours.flow[packet]: nanoseconds(fields[3]) for packet, fields in theirs.items() if fields[3]}
    assert dict(enumerate(ours.measures.rtt.tolist())) == trips

    # How soon data that left the watched end was acknowledged: by which packet, and to the nanosecond.
    acks = {packet: int(fields[4]) - 1 for packet, fields in theirs.items() if fields[4]}
    acks = {packet: data for packet, data in acks.items() if data in ours.left and ours.bytes[data]}
    for packet in acks.keys() - ours.acks.keys():
        assert was_sent_again(ours, acks[packet], packet), packet
        del acks[packet]
    assert ours.acks == acks
    took = defaultdict(list)
    for packet, data in acks.items():
        took[ours.flow[packet]].append(nanoseconds(theirs[packet][5]) + moved(ours, theirs, data, packet))
    medians = [
        statistics.median_low(took[number]) if took[number] else -1 for number in range(len(ours.flows))
    ]
    assert ours.measures.ack_rtt.tolist() == medians


def was_sent_again(ours: Ours, data: int, ack: int) -> bool:
    """Exception 1: of data that was sent again, tshark times the last sending; ackward leaves it out (Karn)."""
    return any(
        data <= packet < ack
        and ours.flow[packet] == ours.flow[data]
        and ours.to_server[packet] == ours.to_server[data]
        for packet in ours.again
    )


def moved(ours: Ours, theirs: dict[int, list[str]], data: int, ack: int) -> int:
    """Exception 2: of a capture between the hosts, tshark times what passed; ackward what the client saw."""
    early, late = (ours.time[packet] - nanoseconds(theirs[packet][2]) for packet in (data, ack))
    assert (early, late) == (0, 0) or ours.flows[ours.flow[data]].seen_from == "between"
    return late - early


def test_packets_captured_several_times() -> None:
    """Exception 3: copies of a packet at other interfaces are taken for retransmissions, in the order of the file by tshark,
    by time by ackward.

    And exception 4: what passed inside a tunnel and outside is one connection for tshark, two for ackward.
    """
    path = captures.DIRECTORY / COPIES
    ours = Ours(path)
    theirs = fields_of(
        path,
        "tcp.stream",
        "frame.interface_id",
        "tcp.seq_raw",
        "tcp.ack_raw",
        "tcp.len",
        "tcp.flags",
        "ip.id",
        "tcp.srcport",
        *AGAIN,
    )
    seen_at = defaultdict(set)
    for _, interface, *header in theirs.values():
        seen_at[tuple(header[:6])].add(interface)
    again = {packet for packet, fields in theirs.items() if any(fields[8:])}
    assert again != ours.again
    for packet in again | ours.again:
        assert len(seen_at[tuple(theirs[packet][2:8])]) > 1
    assert len({fields[0] for fields in theirs.values()}) == 1
    assert len({(flow.client, flow.server) for flow in ours.flows}) == 1
    assert len(ours.flows) == 2
