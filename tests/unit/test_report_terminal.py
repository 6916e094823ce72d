"""The terminal's view: fits 80 columns, says the same without colour, and its commands can be copied."""

from __future__ import annotations

import io
import re
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType
from tests.unit import report_factory

from ackward.model import names, units
from ackward.model.causes import Cause
from ackward.model.report import Report
from ackward.model.verdict import Result
from ackward.report import summary, terminal
from ackward.report.shell import shell_lines


def printed(view: RenderableType, *, width: int = 80, **console: bool) -> str:
    out = io.StringIO()
    Console(file=out, width=width, **console).print(view)  # type: ignore[arg-type]
    return out.getvalue()


def squeezed(text: str) -> str:
    return re.sub(r"[\s│]+", " ", text)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize(
    "report",
    [report_factory.standoff(), report_factory.healthy(), report_factory.hostile(), report_factory.empty()],
)
def test_nothing_is_wider_than_the_terminal(report: Report, width: int) -> None:
    lines = printed(terminal.report_view(report), width=width).splitlines()
    lines += printed(
        terminal.verdict_view(report_factory.verdict(), report_factory.phases()), width=width
    ).splitlines()
    assert max(map(cell_len, lines)) <= width


def test_a_finding_says_all_that_there_is() -> None:
    text = squeezed(printed(terminal.report_view(report_factory.standoff())))
    finding = report_factory.standoff_finding()
    for words in (
        "44.0 ms lost on 59 of 60 exchanges: standoff.",
        "The client holds data back, the server delays the ACK.",
        "standoff, observed",
        summary.MEANINGS[Cause.STANDOFF],
        "10.77.0.1:53122 holds data back",
        "10.77.0.2:7000 delays the ACK",
        "container orders-7c9f",
        finding.why,
        *finding.evidence,
        "quickack at the server would save 2.59 s of 2.59 s",
        finding.remedies[1].advice,
    ):
        assert words is not None
        assert words in text


def test_nothing_wrong_is_said_plainly_with_where_the_time_went() -> None:
    text = printed(terminal.report_view(report_factory.healthy()))
    assert text.startswith("Nothing waits on a rule of TCP: 60 exchanges took 1.53 ms, 43.2 % of it network.")
    assert "╭" not in text


def test_no_exchange_is_said_plainly() -> None:
    assert printed(terminal.report_view(report_factory.empty())).startswith("No exchange was seen")


def test_dropped_flows_are_said_aloud() -> None:
    report = report_factory.many_flows(50)
    assert "12 flows could not be kept and are in no number here." in printed(terminal.report_view(report))


def test_a_thousand_findings_do_not_scroll_the_worst_one_away() -> None:
    report = report_factory.standoff()
    [finding, *_] = report.findings
    many = [
        finding.model_copy(
            update={
                "server": f"10.77.0.2:{7000 + n}",
                "lost_ns": finding.lost_ns.model_copy(update={"total": 10**9 + n}),
            }
        )
        for n in range(1000)
    ]
    text = printed(terminal.report_view(report.model_copy(update={"findings": many})), width=100)
    assert text.count("╭") == terminal.MOST_FINDINGS
    assert "10.77.0.2:7999" in text
    assert "And 992 smaller findings (standoff), 16 min 32 s in all: --report and --json show them." in text


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause.NAGLE, "The client holds data back"),
        (Cause.RETRANSMISSION_TIMEOUT, "The client waits for its retransmission timer"),
        (Cause.RECEIVE_WINDOW, "The client waits until the other end reads"),
    ],
)
def test_what_an_end_does_is_what_its_cause_makes_it_do(cause: Cause, words: str) -> None:
    finding = report_factory.standoff_finding().model_copy(update={"cause": cause, "delaying_end": None})
    assert summary.blame(finding) == f"{words}."


def test_a_finding_that_took_no_time_says_so() -> None:
    report = report_factory.standoff()
    nothing = report.findings[0].lost_ns.model_copy(update={"p50": 0, "p99": 0, "total": 0})
    finding = report.findings[0].model_copy(update={"lost_ns": nothing})
    assert summary.cost(finding, report) == "no time lost on 59 of 60 exchanges"
    text = printed(terminal.report_view(report.model_copy(update={"findings": [finding]})))
    assert "│ no time lost on 59 of 60 exchanges  " in text


def test_bars_line_up_and_grow_with_the_time() -> None:
    lines = printed(terminal.report_view(report_factory.healthy())).splitlines()
    bars = [line for line in lines if "█" in line]
    assert len(bars) == 4
    assert len({line.index("█") for line in bars}) == 1
    lengths = [line.count("█") for line in bars]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1] > 0


def test_ascii_terminals_get_ascii_bars() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    Console(file=out, width=80).print(terminal.report_view(report_factory.standoff()))
    assert "####" in out.buffer.getvalue().decode("ascii")


def test_colour_adds_nothing_but_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    view = terminal.report_view(report_factory.standoff())
    plain = printed(view)
    colourful = printed(view, force_terminal=True)
    assert "\x1b[" not in plain
    assert "\x1b[" in colourful
    assert re.sub(r"\x1b\[[0-9;]*m", "", colourful) == plain


@pytest.mark.parametrize("name", report_factory.HOSTILE)
def test_hostile_names_are_text(name: str) -> None:
    report = report_factory.hostile()
    text = printed(terminal.report_view(report), width=200)
    assert all(character == "\n" or character.isprintable() for character in text)
    finding = report.findings[0].model_copy(update={"client": name})
    shown = printed(terminal.report_view(report.model_copy(update={"findings": [finding]})), width=200)
    assert names.visible(name) in shown


def test_the_verdict_has_its_words_its_phases_and_its_interval() -> None:
    text = squeezed(printed(terminal.verdict_view(report_factory.verdict(), report_factory.phases())))
    assert text.startswith("Improved. The median fell from 44.0 ms to 24 us")
    assert "44.0 ms 44.3 ms 59 of 60" in text
    assert "24 us 62 us 0 of 60" in text
    assert "0.000548 (95 % confidence: 0.000531 to 0.000566)" in text


@pytest.mark.parametrize("result", Result)
def test_a_verdict_without_phases_shows_its_own_two(result: Result) -> None:
    verdict = report_factory.verdict().model_copy(update={"result": result})
    text = squeezed(printed(terminal.verdict_view(verdict)))
    assert text.startswith(f"{result.capitalize()}.")
    assert "before" in text
    assert "after" in text


def argv_of(lines: list[str]) -> list[str]:
    """What a shell makes of the lines as they would be pasted."""
    script = 'printf "%s\\0" ' + "\n".join(lines).lstrip() + "\n"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize(
    "argv",
    [
        shlex.split(report_factory.COMMAND),
        [
            "sudo",
            "/home/someone/projects/observability/checkouts/with a space/.venv/bin/ackward",
            "undo",
            "--all",
        ],
        ["ackward", "fix", "--netns", 'it\'s $(reboot) `reboot` "quoted" \\ back; ls | cat & > x' * 4],
        ["ackward"],
    ],
)
def test_a_shell_reads_a_continued_command_as_the_same(argv: list[str], width: int) -> None:
    lines = shell_lines(shlex.join(argv), width)
    assert argv_of(lines) == argv
    assert max(map(len, lines)) <= width


@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])), min_size=1),
    st.integers(16, 120),
)
def test_a_continued_command_never_leaves_its_width(argv: list[str], width: int) -> None:
    lines = shell_lines(shlex.join(argv), width)
    assert max(map(len, lines)) <= width
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == argv


def test_a_command_that_is_more_than_words_is_left_alone() -> None:
    command = "cd /tmp && ls | head # " + "x" * 100
    assert "".join(shell_lines(command, 40)).strip() == command


class TestUnits:
    @pytest.mark.parametrize(
        ("ns", "text"),
        [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.0 us"),
            (2_540, "2.5 us"),
            (9_960, "10 us"),
            (22_400, "22 us"),
            (999_499, "999 us"),
            (999_501, "1.00 ms"),
            (43_982_000, "44.0 ms"),
            (999_499_999, "999 ms"),
            (999_500_001, "1.00 s"),
            (1_200_000_000, "1.20 s"),
            (59_499_999_999, "59.5 s"),
            (59_500_000_001, "1 min 00 s"),
            (123_000_000_000, "2 min 03 s"),
            (3_600_000_000_000, "1 h 00 min"),
            (86_400_000_000_000, "24 h 00 min"),
            (-43_982_000, "-44.0 ms"),
        ],
    )
    def test_durations(self, ns: int, text: str) -> None:
        assert units.duration(ns) == text

    @given(st.integers(0, 10**17))
    def test_a_duration_is_short_and_right(self, ns: int) -> None:
        text = units.duration(ns)
        assert len(text) <= 15
        assert abs(value_of(text) - ns) <= max(0.05 * ns, 0.5)

    @given(st.integers(0, 10**17), st.integers(0, 10**17))
    def test_a_longer_time_never_reads_as_a_shorter_one(self, one: int, other: int) -> None:
        shorter, longer = sorted((one, other))
        assert value_of(units.duration(shorter)) <= value_of(units.duration(longer))

    @pytest.mark.parametrize(
        ("octets", "text"),
        [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (999_600, "1.00 MB"),
            (64_000, "64.0 kB"),
            (10**15, "1,000 TB"),
        ],
    )
    def test_sizes(self, octets: int, text: str) -> None:
        assert units.size(octets) == text

    @pytest.mark.parametrize(
        ("part", "whole", "text"),
        [
            (0, 0, "0 %"),
            (0, 5, "0 %"),
            (5, 5, "100 %"),
            (1, 10**9, "<0.1 %"),
            (10**9 - 1, 10**9, ">99.9 %"),
            (1, 8, "12.5 %"),
        ],
    )
    def test_shares(self, part: int, whole: int, text: str) -> None:
        assert units.share(part, whole) == text

    @given(st.integers(0, 10**12), st.integers(1, 10**12))
    def test_a_share_is_all_or_none_only_if_it_is(self, part: int, rest: int) -> None:
        assert units.share(part, part + rest) != "100 %"
        assert (units.share(part, part + rest) == "0 %") == (part == 0)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0.0, "0"),
            (0.000548, "0.000548"),
            (1.0, "1.00"),
            (1.7321, "1.73"),
            (1913.2, "1,913"),
            (9.999, "10.0"),
        ],
    )
    def test_ratios(self, value: float, text: str) -> None:
        assert units.ratio(value) == text

    def test_instants_line_up(self) -> None:
        assert [units.instant(ns) for ns in (0, 14_499, 43_914_000, -1_500)] == [
            "0.000 ms",
            "0.014 ms",
            "43.914 ms",
            "-0.002 ms",
        ]


SCALES = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9, "min": 60e9, "h": 3600e9}


def value_of(text: str) -> float:
    """Nanoseconds of a duration as it is written."""
    words = text.replace(",", "").split()
    return sum(float(number) * SCALES[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
