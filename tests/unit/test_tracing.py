"""Raw trace events and what they are called: the rules, without a kernel."""

from __future__ import annotations

from ipaddress import ip_address

import numpy as np
import pytest

from ackward.capture.trace_layout import TRACE_EVENT
from ackward.diagnosis.tracing import Happened, What, told
from ackward.model.report import Process
from ackward.model.segments import Endpoint, Kind, Nonagle
from ackward.model.trace import LostEvent, TracedEnd, TraceLine
from ackward.report.trace_lines import Lines

END = TracedEnd(
    Endpoint(ip_address("10.0.0.2"), 7000),
    Endpoint(ip_address("10.0.0.1"), 5555),
    4026531840,
    Process(pid=7, command="server\x1b[31m", netns="web"),
)
WALL_NS = 1_700_000_000_000_000_000
NOW = 90_000_000
FULL = 1448


def raw(what, *, now=None, held=None, before=None, **fields):
    """One raw event; its segment was sent at NOW, everything else is zero unless named."""
    row = np.zeros(1, TRACE_EVENT)
    row["what"] = what
    row["end"]["pingpong_threshold"] = 1
    parts = {
        "now": {"time_ns": NOW, "kind": Kind.SENT, **(now or {})},
        "held": held or {},
        "before": before or {},
    }
    for part, values in parts.items():
        for name, value in values.items():
            row[part][name] = value
    for name, value in fields.items():
        row[name] = value
    return row


def tell(*rows):
    return list(told(np.concatenate(rows), WALL_NS, lambda _: END))


@pytest.mark.parametrize(
    ("what", "fields", "outcome"),
    [
        (What.ACK_ARMED, {}, "armed"),
        (What.ACK_SENT, {"by_ack_timer": 1}, "fired"),
        (What.ACK_SENT, {}, "alone"),
        (What.ACK_SENT, {"now": {"bytes": 10}}, "with-data"),
        (What.ACK_SENT, {"now": {"tcp_flags": 0x11}}, "with-data"),
    ],
)
def test_an_ack_was_delayed_by_its_timer_only_if_that_sent_it(what, fields, outcome):
    [event] = tell(raw(what, data_ns=NOW - 40_000_000, **fields))
    assert (event.event, event.outcome, event.delay_ns) == ("ack", outcome, 40_000_000)
    assert (event.time_ns, event.data_ns) == (WALL_NS + NOW, WALL_NS + NOW - 40_000_000)


#: A socket that wrote 200 bytes with 100 in flight, everything else being wide open.
SMALL = {
    "time_ns": NOW - 44_000_000,
    "kind": Kind.WRITE_HELD,
    "seq": 1100,
    "snd_una": 1000,
    "snd_nxt": 1100,
    "write_seq": 1300,
    "bytes": 200,
    "in_flight": 1,
    "cwnd": 10,
    "mss": FULL,
    "peer_window": 65535,
}


@pytest.mark.parametrize(
    ("held", "acknowledged", "expected"),
    [
        ({}, 1100, ("nagle", 200, "ack")),
        ({}, 1000, ("nagle", 200, "other")),
        ({"nonagle": Nonagle.CORK}, 1100, ("cork", 200, "ack")),
        ({"nonagle": Nonagle.OFF}, 1100, None),  # the host's own queues
        ({"cwnd": 1}, 1100, None),
        ({"peer_window": 100}, 1100, None),
        # A segment left with 52 bytes behind it; its own are not in flight yet where the kernel counts.
        (
            {"kind": Kind.SENT, "seq": 1100, "bytes": FULL, "segments": 1, "write_seq": 2600, "in_flight": 0},
            1100 + FULL,
            ("nagle", 52, "ack"),
        ),
    ],
)
def test_holds_are_named_by_the_rule_of_the_diagnosis(held, acknowledged, expected):
    events = tell(raw(What.WRITE_RELEASED, now={"snd_una": acknowledged}, held=SMALL | held))
    if expected is None:
        assert events == []
    else:
        [event] = events
        assert (event.rule, event.held_bytes, event.released_by) == expected
        assert event.delay_ns == 44_000_000


@pytest.mark.parametrize(
    ("before", "after", "happened", "because"),
    [
        ({"pingpong": 1}, {}, Happened.TIMER_FIRED, "delayed-ACK timer"),
        ({"pingpong": 1}, {}, Happened.DATA_RECEIVED, "setsockopt TCP_QUICKACK"),
        ({"pingpong": 1}, {}, Happened.DATA_RECEIVED | Happened.OUT_OF_ORDER, "segment out of order"),
        ({"pingpong": 1}, {}, Happened.CONGESTION_MARK, "congestion mark"),
        ({"pingpong": 9}, {"pingpong": 1}, Happened.FIN_RECEIVED, "FIN received"),
        ({"pingpong": 9}, {"pingpong": 1}, Happened.DATA_SENT, "setsockopt TCP_QUICKACK"),
        ({}, {"pingpong": 1}, Happened.DATA_SENT, "data sent"),
        ({}, {"pingpong": 1}, Happened.FIN_RECEIVED, "FIN received"),
        ({}, {"pingpong": 1}, Happened.DATA_RECEIVED, "setsockopt TCP_QUICKACK"),
        ({}, {"quick": 16}, Happened.DATA_RECEIVED, "first data"),
        ({"ato": 10}, {"quick": 16, "ato": 10}, Happened.DATA_RECEIVED, "data after idle"),
        ({"ato": 10}, {"quick": 16, "ato": 10}, Happened.OUT_OF_ORDER, "segment out of order"),
        ({}, {"ato": 10}, 0, "first data"),  # a budget of one, spent at once
        ({"quick": 16, "ato": 10}, {"quick": 17, "ato": 10}, Happened.DATA_RECEIVED, "window grew"),
        ({"quick": 14}, {}, 0, "receive buffer full"),
        ({"pingpong": 1, "ato": 10}, {"ato": 20}, Happened.TIMER_FIRED, "setsockopt TCP_QUICKACK"),
        ({"quick": 1}, {}, 0, "budget spent"),
        ({"quick": 9}, {"quick": 8}, 0, "ACK sent"),
        ({"ato": 10}, {"ato": 20}, Happened.TIMER_FIRED, "delayed-ACK timer"),
        ({"ato": 10}, {"ato": 12}, 0, "unknown"),
    ],
)
def test_a_change_is_put_down_to_the_only_rule_that_could_have_made_it(before, after, happened, because):
    [event] = tell(raw(What.MODE_CHANGED, before=before, now=after, happened=happened))
    assert event.because == because


def test_quickack_is_the_kernels_own_rule():
    """tcp_in_quickack_mode(): the route, or a budget outside of pingpong."""

    def quickack(quick, pingpong, route, threshold=1):
        row = raw(What.MODE_CHANGED, now={"quick": quick, "pingpong": pingpong}, route_quickack=route)
        row["end"]["pingpong_threshold"] = threshold
        return tell(row)[0].mode.quickack

    assert quickack(1, 0, 0)
    assert quickack(1, 2, 0, threshold=3)
    assert quickack(0, 9, 1)
    assert not quickack(0, 0, 0)
    assert not quickack(16, 1, 0)
    assert not quickack(16, 1, 2)  # the kernel does not say


@pytest.mark.parametrize(
    ("timer", "state", "probe"),
    [
        (5, 0, "tail-loss-probe"),
        (1, 0, "retransmission-timeout"),
        (3, 0, "zero-window-probe"),
        (6, 3, "reordering-timeout"),
        (0, 3, "fast-retransmit"),
        (0, 4, "retransmission-timeout"),
        (0, 0, "unknown"),
    ],
)
def test_what_a_kernel_sent_by_itself_is_named_by_the_timer_that_ran(timer, state, probe):
    [event] = tell(raw(What.SENT_AGAIN, now={"ca_state": state}, timer=timer))
    assert event.probe == probe


def test_relative_numbers_count_from_the_syns_of_either_direction():
    sent = raw(What.SENT_AGAIN, now={"seq": 4, "ack": 1001})
    received = raw(What.SENT_AGAIN, now={"seq": 1001, "ack": 4, "kind": Kind.RECEIVED})
    for row in (sent, received):
        row["end"]["first_sent"], row["end"]["first_received"] = 0xFFFFFFFF, 1000
    mine, theirs = tell(sent, received)
    assert (mine.direction, mine.relative_seq, mine.relative_ack) == ("sent", 5, 1)
    assert (theirs.direction, theirs.relative_seq, theirs.relative_ack) == ("received", 1, 5)


@pytest.mark.parametrize(
    ("unsent", "words"), [(0, ""), (1, "1 byte never left"), (200, "200 bytes never left")]
)
def test_an_end_says_what_never_left(unsent, words):
    [event] = tell(raw(What.ENDED, now={"kind": Kind.WRITE_HELD, "bytes": unsent}))
    assert (event.event, event.direction, event.bytes, event.unsent_bytes) == ("end", None, 0, unsent)
    assert "connection ended" in Lines().line(event)
    assert words in Lines().line(event)


def test_lines_stand_under_each_other_and_show_names_without_obeying_them():
    rows = [
        raw(What.ACK_SENT, data_ns=NOW - 40_000_000, by_ack_timer=1, now={"seq": 4_000_000_000}),
        raw(What.WRITE_RELEASED, held=SMALL),
        raw(What.SENT_AGAIN, timer=5),
        raw(What.MODE_CHANGED, before={"pingpong": 1}, happened=Happened.TIMER_FIRED),
        raw(What.ACK_ARMED, data_ns=NOW - 3_000, now={"kind": Kind.ACK_TIMER}),
    ]
    lines = Lines()
    texts = [lines.line(event) for event in tell(*rows)]
    assert len({text.index("10.0.0.2:7000") for text in texts}) == 1
    assert len({text.index(" ack ") > 0 and text.index("seq") for text in texts}) == 1
    assert all("\x1b" not in text and "pid 7 in namespace web" in text for text in texts)
    assert "ACK delayed, timer fired" in texts[0]
    assert "40.0 ms" in texts[0]
    assert "200 bytes" in texts[1]
    assert "10.0.0.2:7000 - 10.0.0.1:5555" in texts[4]
    assert "3 events lost" in lines.line(LostEvent(time_ns=WALL_NS, count=3))


def test_every_line_is_of_the_published_schema():
    rows = [raw(what, held=SMALL, data_ns=1) for what in What]
    for event in [*tell(*rows), LostEvent(time_ns=1, count=2)]:
        assert TraceLine.model_validate_json(event.model_dump_json(by_alias=True)).root == event
