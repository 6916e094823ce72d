"""The experiment quickack-toggle without a kernel: the rule, the names of steps, a timeline from hand-made events."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest

from ackward.errors import UsageError
from ackward.lab.experiment import Experiment
from ackward.lab.scenario import Scenario
from ackward.lab.scenarios import runnable
from ackward.lab.toggle_timeline import Mark, budget_rule, timeline_of
from ackward.model.report import Process
from ackward.model.segments import WIRE_SEGMENT, Flag
from ackward.model.toggle import AckKind, ToggleReport
from ackward.model.trace import FUNCTIONS, AckEvent, AckMode, Because, ModeEvent, Outcome
from ackward.report.toggle_chart import draw, scale_of
from ackward.report.toggle_page import packet_lines, render
from ackward.report.toggle_table import view

MS, US = 1_000_000, 1_000
#: The wall clock when the program had accepted.
START = 1_700_000_000_000_000_000
CLIENT_ISN, SERVER_ISN, FULL = 4_294_967_000, 9_000, 1448


@pytest.mark.parametrize(
    ("window", "segment", "quick_acks"),
    [
        (65160, 1448, 16),  # 22 would fill half of it: TCP_MAX_QUICKACKS
        (16 * 2 * 1448, 1448, 16),
        (16 * 2 * 1448 - 1, 1448, 15),
        (2 * 1448, 1448, 1),
        (2 * 1448 - 1, 1448, 2),  # none becomes two
        (0, 1448, 2),
    ],
)
def test_the_rule_of_the_budget(window, segment, quick_acks):
    assert budget_rule(window, segment) == quick_acks


def mode(quick, pingpong=0, ato=10, *, route=False):
    on = route or (quick > 0 and pingpong == 0)
    return AckMode(quickack=on, quick=quick, pingpong=pingpong, ato=ato, route=route)


def event(kind, at, ack, after, **fields):
    """An event at the server's socket, ``at`` ns after the start."""
    everyone = {
        "time_ns": START + at,
        "flow": 1,
        "local": "10.0.0.2:7000",
        "remote": "10.0.0.1:5555",
        "direction": "sent",
        "seq": SERVER_ISN + 1,
        "ack": 0,
        "relative_seq": 1,
        "relative_ack": ack,
        "bytes": 0,
        "netns": 1,
        "process": Process(),
        "mode": after,
    }
    return kind(**(everyone | fields))


def step(before, after, because, **fields):
    return event(ModeEvent, 0, 1, after, before=before, because=because, **fields)


def test_every_reason_has_a_function():
    assert set(FUNCTIONS) == set(Because)


def wire(*rows):
    """Packets: (at ns, sent, flags, relative seq, relative ack, bytes, window)."""
    segments = np.zeros(len(rows), WIRE_SEGMENT)
    for segment, (at, sent, flags, seq, ack, octets, window) in zip(segments, rows, strict=True):
        mine, other = (SERVER_ISN, CLIENT_ISN) if sent else (CLIENT_ISN, SERVER_ISN)
        segment["time_ns"], segment["to_server"], segment["tcp_flags"] = START + at, not sent, flags
        segment["seq"], segment["ack"] = (mine + seq) % 2**32, (other + ack) % 2**32
        segment["bytes"], segment["window"] = octets, window
    return segments


WINDOW = 3 * FULL


def connection():
    """A budget of one; a second segment that waits for the timer; a request that is answered."""
    packets = wire(
        (-3 * MS, False, Flag.SYN, 0, 0, 0, 64000),
        (-2 * MS, True, Flag.SYN | Flag.ACK, 0, 1, 0, WINDOW),
        (1 * MS, False, Flag.ACK, 1, 1, FULL, 64000),
        (1 * MS + 20 * US, True, Flag.ACK, 1, 1 + FULL, 0, WINDOW),
        (2 * MS, False, Flag.ACK, 1 + FULL, 1, FULL, 64000),
        (42 * MS, True, Flag.ACK, 1, 1 + 2 * FULL, 0, WINDOW),
        (42 * MS + 1, True, Flag.ACK, 1, 1 + 2 * FULL, 0, WINDOW),
        (60 * MS, False, Flag.ACK | Flag.PSH, 1 + 2 * FULL, 1, 100, 64000),
        (61 * MS, True, Flag.ACK | Flag.PSH, 1, 101 + 2 * FULL, 50, WINDOW),
    )
    ack = lambda at, reached, outcome, delay, after, **more: event(  # noqa: E731
        AckEvent, at, reached, after, outcome=outcome, delay_ns=delay, data_ns=START + at - delay, **more
    )
    spent = mode(0)
    events = [
        ack(1 * MS + 15 * US, 1 + FULL, Outcome.ALONE, 15 * US, spent),
        event(
            ModeEvent, 1 * MS + 15 * US, 1 + FULL, spent, before=mode(0, ato=0), because=Because.FIRST_DATA
        ),
        ack(2 * MS + 5 * US, 1 + FULL, Outcome.ARMED, 5 * US, spent),
        ack(42 * MS - 10 * US, 1 + 2 * FULL, Outcome.FIRED, 40 * MS, mode(0, ato=20)),
        ack(61 * MS - 10 * US, 101 + 2 * FULL, Outcome.WITH_DATA, 1 * MS, mode(0, 1), bytes=50),
        ack(99 * MS, 102 + 2 * FULL, Outcome.ALONE, 1 * US, mode(0, 1)),  # of closing: after the last phase
    ]
    marks = [
        Mark("one <b>", "one way", START, START + 50 * MS, option=True),
        Mark("two", "answered", START + 50 * MS, START + 70 * MS, option=False),
    ]
    return timeline_of("1", 4096, marks, events, packets)


def test_a_timeline_tells_each_ack_its_rule_its_delay_and_tcpdumps_delay():
    seen = connection()
    assert [(ack.phase, ack.kind, ack.delay_ns, ack.wire_delay_ns) for ack in seen.acks] == [
        ("one <b>", AckKind.QUICK, 15 * US, 20 * US),
        ("one <b>", AckKind.TIMER, 40 * MS, 40 * MS),
        ("two", AckKind.WITH_DATA, 1 * MS, 1 * MS),
    ]
    one, two = seen.phases
    assert (one.acks, one.duplicates, one.delay_max_ns) == ({AckKind.QUICK: 1, AckKind.TIMER: 1}, 1, 40 * MS)
    assert (two.packets_received, two.packets_sent, two.option) == (1, 1, False)


def test_a_budget_of_one_is_seen_though_it_is_spent_at_once():
    [budget] = connection().budgets
    assert (budget.window_bytes, budget.segment_bytes, budget.rule) == (WINDOW, FULL, 1)
    assert (budget.filled, budget.spent, budget.grown, budget.left) == (1, {AckKind.QUICK: 1}, 0, 0)
    assert budget.ended is Because.BUDGET


def test_time_on_the_chart_only_goes_right_and_every_phase_has_room():
    phases = connection().phases
    scale = scale_of(phases, [1 * MS, 1 * MS + 1, 42 * MS])
    assert list(scale.places) == sorted(scale.places)
    assert scale.x(-1) == scale.places[0]
    assert scale.x(10**12) == scale.places[-1]
    assert scale.x(phases[0].end_ns) - scale.x(0) >= 84
    assert scale.x(phases[1].end_ns) - scale.x(phases[1].start_ns) >= 84
    assert ET.fromstring(draw(connection(), 4 * MS)).tag == "svg"


def test_the_page_and_the_terminal_hold_every_line_and_escape_names():
    seen = connection()
    report = ToggleReport(
        scenario="quickack-toggle",
        settings={},
        kernel="Linux <6>",
        jiffy_ns=4 * MS,
        lost_events=2,
        notes=("a note",),
        timelines=(seen,),
        first_budgets=(),
    )
    assert ToggleReport.model_validate_json(report.to_json()) == report
    text = render(report)
    assert "<b>" not in text
    assert "Linux <6>" not in text
    assert "2 events of the trace" in text
    lines = list(packet_lines(seen))
    assert len(lines) == len(seen.packets) + len(seen.phases)
    assert sum("socket:" in line for line in lines) == len(seen.acks)
    assert view(report)


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("values=1,9", "unset,0,1,2,3,route"),
        ("buffer=1", "16384"),
        ("buffers=1", "2048"),
        ("rounds=3", "values"),
        ("family=5", "4 or 6"),
    ],
)
def test_settings_that_mean_nothing_are_refused(setting, hint):
    with pytest.raises(UsageError) as refused:
        runnable("quickack-toggle").with_settings([setting])
    assert hint in str(refused.value)


def test_settings_and_kinds_of_scenarios():
    experiment = runnable("quickack-toggle").with_settings(["values=1,route,1", "buffers="])
    assert isinstance(experiment, Experiment)
    assert (experiment.settings["values"], experiment.settings["buffers"]) == (("1", "route"), ())
    assert isinstance(runnable("standoff"), Scenario)
