"""The time-sequence plot: what it keeps of real recordings, and of captures with losses, SACKs and closed windows."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from ipaddress import ip_address

import numpy as np
import pytest
from pydantic import ValidationError
from tests import recordings
from tests.unit import drawing_factory

from ackward.diagnosis import sequence
from ackward.diagnosis.attribution import partition
from ackward.diagnosis.diagnose import diagnose
from ackward.diagnosis.exchanges import Timeline, cut
from ackward.diagnosis.flows import join
from ackward.diagnosis.partition import CAUSES, Parts
from ackward.diagnosis.wire import WireFlow, WireFlows, view
from ackward.model.causes import Cause, End
from ackward.model.segments import WIRE_SEGMENT, Endpoint, Flag, Kind
from ackward.model.sequence import MOST_SEGMENTS, SequencePlot
from ackward.report import sequence as page

STANDOFFS = [f"{recipe}-{view}" for recipe in ("standoff", "standoff-ipv6") for view in recordings.VIEWS]


def plot_of(name: str) -> SequencePlot:
    [finding] = diagnose(recordings.load(name)).report.findings
    assert finding.sequence is not None
    return finding.sequence


@pytest.mark.parametrize("name", STANDOFFS)
def test_a_standoff_is_seen_from_the_end_that_holds_if_it_was_watched(name):
    plot = plot_of(name)
    assert plot.seen_from == ("server" if name.endswith("server") else "client")
    assert plot.stalled_to_server
    assert list(plot.at_ns) == sorted(plot.at_ns)
    assert min(plot.at_ns[0], plot.exchange_ns[0]) >= 0
    assert max(plot.at_ns[-1], plot.exchange_ns[1]) <= plot.elapsed_ns
    assert plot.segments_seen == len(plot.at_ns)
    assert not plot.again
    assert not plot.late


@pytest.mark.parametrize("name", STANDOFFS)
def test_its_stalls_are_those_of_the_ladder(name):
    [finding] = diagnose(recordings.load(name)).report.findings
    assert finding.sequence
    assert finding.ladder
    start = finding.sequence.exchange_ns[0]
    shown = [(stall.start_ns + start, stall.end_ns + start) for stall in finding.ladder.stalls]
    assert set(shown) <= set(finding.sequence.stalls_ns)
    assert len(finding.sequence.stalls_ns) > len(shown)  # its neighbours stalled too


@pytest.mark.parametrize("name", [name for name in STANDOFFS if not name.endswith("server")])
def test_the_held_bytes_stand_at_the_end_of_the_stall(name):
    plot = plot_of(name)
    sent = {plot.at_ns[row]: row for row in range(len(plot.at_ns)) if plot.to_server[row] and plot.bytes[row]}
    for _, end in plot.stalls_ns:
        row = sent[end]  # the moment at which the held segment left
        [mark] = [
            mark
            for mark in plot.marks
            if (mark.kind, mark.seq) == ("write-held", plot.seq[row]) and mark.at_ns < end
        ][-1:]
        assert mark.note.startswith(f"{plot.bytes[row]} B written, held (Nagle on")


@pytest.mark.parametrize("name", recordings.names())
def test_windows_of_a_live_recording_are_those_that_the_socket_took(name):
    """What a segment said is what its receiver shows next; with both ends watched that is known but at the end."""
    flows, segments = join(recordings.load(name))
    timeline = cut(flows, segments)
    rows = np.arange(len(segments))
    window = sequence._windows(timeline, rows)
    both = name.endswith("both")
    acks = np.isin(segments["kind"], (Kind.SENT, Kind.RECEIVED)) & (segments["tcp_flags"] & Flag.ACK > 0)
    taken = acks if both else acks & (segments["kind"] == Kind.RECEIVED)
    assert (window[taken] >= 0).mean() > 0.9
    assert set(np.unique(window[window >= 0])) <= set(np.unique(segments["peer_window"]))
    assert both or (window[acks & (segments["kind"] == Kind.SENT)] < 0).all()


@pytest.mark.parametrize("name", recordings.names())
def test_every_exchange_of_every_recording_can_be_drawn(name):
    flows, segments = join(recordings.load(name))
    timeline = cut(flows, segments)
    parts = partition(timeline)
    for exchange in range(timeline.count):
        for holding in (None, *End):
            plot = sequence.plot(timeline, parts, exchange, Cause.NETWORK, holding)
            assert len(plot.at_ns) <= MOST_SEGMENTS
            start, end = plot.exchange_ns
            assert end - start == timeline.end[exchange] - timeline.start[exchange]
            assert plot.elapsed_ns <= (1 + 2 * sequence.REACH) * (end - start)
            assert unpacked(page.packed(plot, Cause.NETWORK)) == rows_of(plot)


# A transfer as a capture at the server shows it. Sequence numbers wrap on the way.

SIZE, TRIP = 1448, 10_000_000
FIRST = 2**32 - 100 * SIZE


def capture(count: int, *, lost: int = -1, copies: int = 1) -> tuple[Timeline, Parts]:
    """A request, ``count`` segments of answer with an ACK each, one sent again after SACKs, the window closed once."""
    rows = []

    def add(
        at: int, *, out: bool, seq: int, ack: int, size: int = 0, window: int = 60_000, sack: int = 0
    ) -> None:
        row = np.zeros(1, WIRE_SEGMENT)
        row["time_ns"], row["to_server"], row["bytes"], row["window"] = at, not out, size, window
        row["seq"], row["ack"], row["tcp_flags"] = seq % 2**32, ack % 2**32, Flag.ACK
        row["packet"], row["segments"] = len(rows), 1
        if sack:
            row["sack_left"], row["sack_right"] = (FIRST + (lost + 1) * SIZE) % 2**32, sack % 2**32
        rows.append(row)

    add(0, out=False, seq=500, ack=FIRST, size=100)
    for n in range(count):
        at = 1_000_000 + n * 100_000
        add(at, out=True, seq=FIRST + n * SIZE, ack=600, size=SIZE)
        after = FIRST + (n + 1) * SIZE
        closed = {"window": 0} if n == 10 else {}
        missing = 0 <= lost < n
        add(
            at + TRIP, out=False, seq=600, ack=FIRST + lost * SIZE if missing else after,
            sack=after if missing else 0, **closed,
        )  # fmt: skip
    for copy in range(copies if lost >= 0 else 0):
        add(at + TRIP + (1 + copy) * 5_000_000, out=True, seq=FIRST + lost * SIZE, ack=600, size=SIZE)
    wire = np.concatenate(rows)
    # What acknowledges the lost segment alone never came.
    never = (~wire["to_server"]) | (wire["ack"] != (FIRST + (lost + 1) * SIZE) % 2**32) | (lost < 0)
    wire = wire[never][np.argsort(wire[never]["time_ns"], kind="stable")]
    ends = (Endpoint(ip_address("10.0.0.1"), 1), Endpoint(ip_address("10.0.0.2"), 2))
    timeline = cut(*view(WireFlows.of([WireFlow(*ends)]), wire))
    assert timeline.flows[0].seen_from == "server"
    assert timeline.count == 1
    here = np.zeros(1, np.int64)
    stall = Parts(
        here,
        timeline.end - 3_000_000,
        timeline.end,
        here + CAUSES.index(Cause.FAST_RETRANSMIT),
        here == 0,
        here,
        here,
        here,
    )
    return timeline, stall


def drawn(count: int, *, holding: End | None = None, **how: int) -> SequencePlot:
    timeline, parts = capture(count, **how)
    return sequence.plot(timeline, parts, 0, Cause.FAST_RETRANSMIT, holding)


def test_a_loss_in_a_capture():
    plot = drawn(150, lost=40, copies=2)
    assert not plot.stalled_to_server  # nobody is said to hold: the end that sent most
    again = [(plot.seq[row], plot.bytes[row]) for row in plot.again]
    assert again == [(40 * SIZE, SIZE)] * 2
    assert plot.late == ()
    sacked = {
        (plot.ack[row], left, plot.sack_right[row])
        for row, left in enumerate(plot.sack_left)
        if left is not None
    }
    assert sacked == {(40 * SIZE, 41 * SIZE, n * SIZE) for n in range(42, 151)}  # also past the wrap
    assert plot.window.count(0) == 1
    assert plot.packet[:3] == (0, 1, 3)


def test_a_capture_from_between_says_so():
    timeline, parts = capture(30)
    between = replace(timeline, flows=[replace(timeline.flows[0], seen_from="between")])
    plot = sequence.plot(between, parts, 0, Cause.FAST_RETRANSMIT, None)
    assert plot.seen_from == "between"


def test_a_hole_that_is_filled_is_not_called_a_repeat():
    timeline, parts = capture(60, lost=20, copies=2)
    segments = timeline.segments
    first = np.flatnonzero((segments["seq"] == (FIRST + 20 * SIZE) % 2**32) & (segments["bytes"] > 0))[0]
    unseen = cut(timeline.flows, np.delete(segments, first))
    plot = sequence.plot(unseen, parts, 0, Cause.FAST_RETRANSMIT, None)
    assert [plot.seq[row] for row in plot.late] == [20 * SIZE]
    assert [plot.seq[row] for row in plot.again] == [20 * SIZE]
    assert plot.late[0] < plot.again[0]


def test_thinning_keeps_what_matters():
    plot = drawn(40_000, lost=39_500)
    assert len(plot.at_ns) == MOST_SEGMENTS
    assert plot.segments_seen == 80_001
    assert len(plot.again) == 1
    assert sum(left is not None for left in plot.sack_left) == 499  # each of them
    closed = plot.window.index(0)
    assert plot.window[closed + 1] == 60_000
    steps = np.diff([at for at in plot.at_ns if at < 3_900_000_000])
    assert steps.max() < 10 * np.median(steps)  # what had to go went evenly
    [(start, end)] = plot.stalls_ns
    assert [at for at in plot.at_ns if at <= start][-1:] + [at for at in plot.at_ns if at >= end][:1]


def test_thinning_is_even_where_all_rows_say_the_same():
    assert sequence._thinned(np.full(10, 3), 4).tolist() == [0, 3, 6, 9]
    assert sequence._thinned(np.array([3, 0, 3, 1, 3]), 3).tolist() == [0, 1, 3]
    assert sequence._thinned(np.zeros(0, np.int64), 3).tolist() == []


def test_a_long_transfer_is_drawn_quickly():
    timeline, parts = capture(60_000, lost=100, copies=300)
    start = time.perf_counter()
    plot = sequence.plot(timeline, parts, 0, Cause.FAST_RETRANSMIT, None)
    assert time.perf_counter() - start < 10  # some 30 ms on an idle machine; minutes if it were quadratic
    assert len(plot.at_ns) == MOST_SEGMENTS
    assert len(page_text(plot)) < 100_000


def test_columns_must_be_equally_long():
    plot = drawing_factory.standoff_sequence()
    with pytest.raises(ValidationError, match="differ in length"):
        SequencePlot.model_validate(plot.model_dump() | {"seq": (1,)})
    with pytest.raises(ValidationError, match="name rows"):
        SequencePlot.model_validate(plot.model_dump() | {"again": (99,)})


# The page's data and what its script makes of it.


def page_text(plot: SequencePlot) -> str:
    return json.dumps(page.packed(plot, Cause.NETWORK), separators=(",", ":"))


def rows_of(plot: SequencePlot) -> list[tuple[int | None, ...]]:
    packet = plot.packet or [None] * len(plot.at_ns)
    return list(
        zip(
            plot.at_ns, plot.to_server, plot.seq, plot.bytes, plot.flags, plot.ack, plot.window, plot.sack_left,
            plot.sack_right, plot.merged, packet, strict=True,
        )
    )  # fmt: skip


def unpacked(data: dict) -> list[tuple[int | None, ...]]:
    """What templates/sequence.js does, said in Python."""
    at, packet = 0, data["first"]
    end, acked, opened = [0, 0], [0, 0], [0, 0]
    rows = []
    for row, way in enumerate(data["ways"]):
        at += data["at"][row]
        if row and packet is not None:
            packet += data["packet"][row - 1]
        seq = end[way] + data["seq"][row]
        end[way] = seq + data["bytes"][row]
        ack = window = left = right = None
        if data["ack"][row] is not None:
            ack = acked[way] = acked[way] + data["ack"][row]
        if "window" in data and data["window"][row] is not None:
            window = opened[way] = opened[way] + data["window"][row]
        for sacked, ahead, size in data["sacks"]:
            if sacked == row:
                left, right = ack + ahead, ack + ahead + size
        merged = data["merged"][row] if "merged" in data else 1
        rows.append(
            (
                at,
                bool(way),
                seq,
                data["bytes"][row],
                data["flags"][row],
                ack,
                window,
                left,
                right,
                merged,
                packet,
            )
        )
    return rows


@pytest.mark.parametrize(
    "plot",
    [drawing_factory.standoff_sequence(), drawing_factory.lossy_sequence(), drawn(300, lost=40)],
    ids=["standoff", "lossy", "wrapped"],
)
def test_packing_loses_nothing(plot):
    assert unpacked(page.packed(plot, Cause.NETWORK)) == rows_of(plot)


def test_the_caption_counts():
    assert page.seen(drawing_factory.standoff_sequence()) == "12 segments, as seen at the client"
    assert page.seen(drawing_factory.lossy_sequence()) == "203 of 4,012 segments, as seen at the server"
    between = drawing_factory.standoff_sequence().model_copy(update={"seen_from": "between"})
    assert page.seen(between).endswith("as seen between the two hosts, at times estimated for the client")
    assert page.has_neighbours(drawing_factory.standoff_sequence())
    assert not page.has_neighbours(drawing_factory.lossy_sequence())
