"""`ackward lab run quickack-toggle`: what it says of this kernel, each line of docs/quickack.md that rests on it.

One run for all: the experiment takes seconds.
"""

from __future__ import annotations

import signal
import statistics
import subprocess

import pytest
from tests.kernel.lab_hosts import ACKWARD, ackward
from tests.steady import steady

from ackward.lab.toggle_load import SET_AFTER_READ, SET_WHILE_UNREAD
from ackward.lab.toggle_timeline import budget_rule
from ackward.model.tcp_constants import MAX_QUICKACKS
from ackward.model.toggle import AckKind, ToggleReport
from ackward.model.trace import Because

MS = 1_000_000
#: TCP_DELACK_MIN less a tick.
DELAYED = 36 * MS


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return tmp_path_factory.mktemp("toggle") / "toggle.html"


@pytest.fixture(scope="module")
def report(page):
    return ran("--report", str(page))


def ran(*arguments):
    done = ackward("lab", "run", "quickack-toggle", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    report = ToggleReport.model_validate_json(done.stdout)
    assert not report.lost_events
    return report


#: A busy machine disturbs a connection of a run now and then.
STEADY = steady("report", lambda _: ran())


def timeline(report, setting):
    [found] = [each for each in report.timelines if each.setting == setting]
    return found


def phase(timeline, name):
    [found] = [each for each in timeline.phases if each.name == name]
    return found


def during(things, name):
    return [each for each in things if each.phase == name]


SET = pytest.mark.parametrize("setting", ["0", "1", "2", "3"])


@SET
@STEADY
def test_as_many_quick_acks_as_the_budget_has_and_the_budget_is_the_rule(report, setting):
    """A repeated segment fills it, 24 more follow: the window is grown by then, so nothing comes on top."""
    [budget] = [
        each
        for each in during(timeline(report, setting).budgets, "lossy")
        if each.reason is Because.OUT_OF_ORDER
    ]
    assert budget.window_bytes // (2 * budget.segment_bytes) > MAX_QUICKACKS
    assert (budget.filled, budget.rule, budget.grown, budget.left) == (16, 16, 0, 0)
    assert budget.spent == {AckKind.QUICK: 16}
    assert budget.ended is Because.BUDGET


@STEADY
def test_a_smaller_window_gives_a_smaller_budget(report):
    """The first data of a new connection; tcp_grow_window() may have made the budget odd by then."""
    rules = []
    for first in report.first_budgets:
        budget = first.budget
        assert budget.reason is Because.FIRST_DATA
        assert budget.rule == budget_rule(budget.window_bytes, budget.segment_bytes)
        assert budget.filled in (budget.rule, budget.rule | 1)
        # A window update may take one, too.
        assert budget.filled - 1 <= sum(budget.spent.values()) + budget.left
        rules.append(budget.rule)
    assert rules == sorted(rules)
    assert rules[0] == 1  # not "at least 2": only a quotient of 0 becomes 2
    assert rules[-1] == MAX_QUICKACKS
    assert len(set(rules)) >= 4


@pytest.mark.parametrize("setting", ["1", "2", "3"])
@STEADY
def test_set_after_accept_it_changes_nothing_and_getsockopt_does_not_tell(report, setting):
    """No ACK is pending yet, so 2 does not return to pingpong; the budget comes with the first data and is spent."""
    seen = timeline(report, setting)
    on, off = during(seen.switches, "bulk")[:2]
    assert (on.on, on.reason, on.after.pingpong) == (True, Because.FIRST_DATA, 0)
    assert (off.on, off.after.quick) == (False, 0)
    assert off.reason in (Because.BUDGET, Because.BUFFER_FULL)
    bulk = phase(seen, "bulk")
    last = [point for point in seen.points if point.at_ns < bulk.end_ns][-1]
    assert (bulk.option, last.quickack) == (True, False)


def course(timeline):
    """Each turn of quick ACKs before the option is set again, and what turned them on.

    What turned them off is left out: a busy machine spends a budget one answer earlier or later.
    """
    return [
        (step.phase, step.on, step.reason if step.on else None)
        for step in timeline.switches
        if step.phase not in (SET_WHILE_UNREAD.name, SET_AFTER_READ.name)
    ]


@pytest.mark.parametrize("setting", ["1", "2", "3"])
@STEADY
def test_set_after_accept_it_gives_the_same_timeline_as_never_setting_it(report, setting):
    never = course(timeline(report, "unset"))
    assert {name for name, *_ in never} >= {"bulk", "idle", "interactive", "lossy", "window-limited"}
    assert course(timeline(report, setting)) == never != course(timeline(report, "0"))


@pytest.mark.parametrize("setting", ["unset", "0", "1", "2", "3"])
@STEADY
def test_a_full_receive_buffer_takes_the_whole_budget(report, setting):
    [budget] = during(timeline(report, setting).budgets, "window-limited")
    assert (budget.filled, budget.ended) == (16, Because.BUFFER_FULL)
    assert budget.left > 1  # not one that an ACK took


@STEADY
def test_zero_means_pingpong_until_something_leaves_it(report):
    seen = timeline(report, "0")
    assert seen.points[0].pingpong
    first = min(seen.switches, key=lambda switch: switch.at_ns)
    assert (first.on, first.reason) == (True, Because.TIMER)


@pytest.mark.parametrize("setting", ["1", "2", "3"])
@STEADY
def test_data_sent_ends_it_and_the_timer_brings_it_back(report, setting):
    interactive = during(timeline(report, setting).switches, "interactive")
    first, second = interactive[:2]
    assert (first.on, first.reason) == (False, Because.DATA_SENT)
    assert first.after.quick
    assert first.after.pingpong
    assert (second.on, second.reason) == (True, Because.TIMER)
    late = [ack for ack in during(timeline(report, setting).acks, "interactive") if ack.kind is AckKind.TIMER]
    assert len(late) == 2  # one for each answer that came late
    assert all(ack.delay_ns >= DELAYED for ack in late)


@SET
@STEADY
def test_idle_fills_the_budget_but_does_not_leave_pingpong(report, setting):
    seen = timeline(report, setting)
    for name in ("idle", "idle in pingpong"):
        assert Because.IDLE in {budget.reason for budget in during(seen.budgets, name)}
    first = during(seen.acks, "idle in pingpong")[0]
    assert (first.kind, first.delay_ns >= DELAYED) == (AckKind.TIMER, True)
    again = during(seen.switches, "idle in pingpong")[0]
    assert (again.on, again.reason, again.before.quick) == (True, Because.TIMER, 16)


@SET
@STEADY
def test_a_lost_segment_does_not_enter_quick_mode_a_repeated_one_does(report, setting):
    seen = timeline(report, setting)
    entered = [each for each in during(seen.switches, "lossy") if each.on]
    assert [each.reason for each in entered] == [Because.OUT_OF_ORDER]
    assert entered[0].before.pingpong > entered[0].after.pingpong == 0
    received = [packet for packet in seen.packets if packet.direction == "received" and packet.bytes]
    late = [
        packet
        for number, packet in enumerate(received)
        if any(earlier.seq > packet.seq for earlier in received[:number])
    ]
    assert late[0].at_ns < entered[0].at_ns
    # The hole was told by duplicate ACKs, and filled, before anything entered quick mode.
    assert phase(seen, "lossy").duplicates >= 1


@SET
@STEADY
def test_at_the_end_of_the_window_acks_wait_for_the_timer_or_the_reader(report, setting):
    limited = during(timeline(report, setting).acks, "window-limited")
    assert any(ack.kind is AckKind.TIMER and ack.delay_ns >= DELAYED for ack in limited)


@pytest.mark.parametrize(("setting", "flushed"), [("0", 0), ("1", 1), ("2", 1), ("3", 1)])
@STEADY
def test_setsockopt_flushes_a_pending_ack_only_after_the_data_was_read(report, setting, flushed):
    seen = timeline(report, setting)
    unread, read = phase(seen, "set while unread"), phase(seen, "set after read")
    assert AckKind.SETSOCKOPT not in unread.acks
    assert unread.delay_max_ns >= DELAYED
    assert read.acks.get(AckKind.SETSOCKOPT, 0) == flushed


@pytest.mark.parametrize(("setting", "stays"), [("1", True), ("2", False), ("3", True)])
@STEADY
def test_an_even_value_returns_to_pingpong(report, setting, stays):
    seen = timeline(report, setting)
    steps = during(seen.switches, "set after read")
    set_on = [number for number, step in enumerate(steps) if step.on and step.reason is Because.SETSOCKOPT]
    after = steps[set_on[0] + 1 :]
    assert [(step.on, step.reason) for step in after] == (
        [] if stays else [(False, Because.SETSOCKOPT), (True, Because.TIMER)]
    )
    last = during(seen.acks, "set after read")[-1]
    assert last.kind is (AckKind.QUICK if stays else AckKind.TIMER)


def test_a_route_with_quickack_never_toggles(report):
    seen = timeline(report, "route")
    assert seen.switches == ()
    assert all(point.quickack for point in seen.points)
    assert {ack.kind for ack in seen.acks} == {AckKind.QUICK}
    assert any(point.pingpong for point in seen.points)  # it is not that nothing else happened
    assert {point.quick for point in seen.points} >= {0, 16}
    assert statistics.median(ack.delay_ns for ack in seen.acks) < MS


def test_tcpdump_shows_the_same_acks(report):
    for seen in report.timelines:
        assert all(ack.wire_delay_ns is not None for ack in seen.acks)
        apart = [abs(ack.wire_delay_ns - ack.delay_ns) for ack in seen.acks]
        assert statistics.median(apart) < MS
        end = seen.phases[-1].end_ns
        new = [each for each in seen.packets if each.delay_ns is not None and each.at_ns <= end]
        assert {(each.seq, each.ack) for each in new} >= {(ack.seq, ack.ack) for ack in seen.acks}


def test_the_page_is_one_file_without_scripts(report, page):
    text = page.read_text()
    assert text.count('<svg class="toggle"') == len(report.timelines)
    assert "<script" not in text
    assert 'src="' not in text
    assert "://" not in text


def test_it_has_no_view_and_says_so():
    done = ackward("lab", "run", "quickack-toggle", "--view", "client")
    assert done.returncode == 2
    assert "--view" in done.stderr


def test_an_interrupted_run_leaves_nothing_behind(tmp_path):
    command = [ACKWARD, "lab", "run", "quickack-toggle", "--set", "values=1", "--set", "buffers="]
    run = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    try:
        while "TCP_QUICKACK" not in run.stderr.readline():
            assert run.poll() is None
        names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        assert names.count(f"-{run.pid}-") == 3
        assert list(tmp_path.iterdir())
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=20)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 130
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"-{run.pid}-" not in names
    assert not list(tmp_path.iterdir())
