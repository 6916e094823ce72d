"""The page as text: what it says, that it asks for nothing, and that names in it are inert."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest
from tests.unit import drawing_factory, report_factory

from ackward.model import names
from ackward.model.causes import Cause
from ackward.model.report import Capture, CauseTotal, Report
from ackward.model.sequence import MOST_SEGMENTS
from ackward.report import flow_table, html, palette, summary


class Page(HTMLParser):
    """The elements of a page: every attribute, and the text of each element by its tag."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text_of(self, *tags: str) -> list[str]:
        return [data for tag, data in self.texts if tag in tags]

    @property
    def words(self) -> str:
        shown = " ".join(data for tag, data in self.texts if tag not in ("script", "style"))
        return re.sub(r"\s+", " ", shown)


def page_of(report: Report, **arguments: object) -> Page:
    return Page(html.render(report, **({"title": "ackward watch"} | arguments)))  # type: ignore[arg-type]


ALL = {
    "standoff": report_factory.standoff(),
    "healthy": report_factory.healthy(),
    "hostile": report_factory.hostile(),
    "many": report_factory.many_flows(1_000),
    "empty": report_factory.empty(),
}


@pytest.mark.parametrize("name", ALL)
def test_a_page_is_whole_and_asks_for_nothing(name: str) -> None:
    page = page_of(ALL[name], verdict=report_factory.verdict(), phases=report_factory.phases())
    assert page.open == []
    assert not page.all("img")
    assert not page.all("iframe")
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "action", "style", "background"} & attributes.keys(), (tag, attributes)
        assert not [key for key in attributes if key.startswith("on")]
        assert attributes.get("href", "data:,") == "data:,"
    (style,) = page.text_of("style")
    assert "url(" not in style
    assert "@import" not in style
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))


@pytest.mark.parametrize("name", ALL)
def test_the_policy_allows_this_style_and_this_script_only(name: str) -> None:
    page = page_of(ALL[name])
    (policy,) = [
        meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    allowed = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    assert allowed["default-src"] == "'none'"
    assert "unsafe" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page.source, re.DOTALL)
    for directive, sources in (("script-src", scripts), ("style-src", styles)):
        (source,) = sources
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert allowed[directive] == f"'sha256-{digest}'"


def test_the_standoff_page_says_all_that_there_is() -> None:
    report = report_factory.standoff()
    finding = report.findings[0]
    page = page_of(
        report,
        verdict=report_factory.verdict(),
        phases=report_factory.phases(),
        title="the title",
        subtitle="the subtitle",
    )
    (heading,) = page.text_of("h1")
    assert heading == (
        "44.0 ms lost on 59 of 60 exchanges: standoff. The client holds data back, the server delays the ACK."
    )
    for words in (
        "the title",
        "the subtitle",
        "Improved. The median fell from 44.0 ms to 24 us",
        "with quickack 24 us 62 us",
        "59 of 60",
        "0.000548 (95 % confidence: 0.000531 to 0.000566)",
        summary.MEANINGS[Cause.STANDOFF],
        summary.GRADES[finding.grade],
        "Client holds data back 10.77.0.1:53122",
        "Server delays the ACK 10.77.0.2:7000",
        "in container orders-7c9f",
        finding.why,
        *finding.evidence,
        "quickack at the server would save 2.59 s of 2.59 s",
        finding.remedies[1].advice,
        report.capture.notes[0],
    ):
        assert words is not None
        assert words in page.words
    assert report_factory.COMMAND in page.text_of("code")
    assert any(svg.get("class") == "ladder cause-standoff" for svg in page.all("svg"))


def test_the_standoff_page_is_small() -> None:
    page = html.render(
        report_factory.standoff(),
        verdict=report_factory.verdict(),
        phases=report_factory.phases(),
        title="standoff",
    )
    assert len(page.encode()) < 150_000


def test_rendering_is_pure() -> None:
    assert html.render(report_factory.standoff(), title="a") == html.render(
        report_factory.standoff(), title="a"
    )


def test_the_partition_bar_is_a_partition_with_exact_numbers() -> None:
    report = report_factory.standoff()
    parts = summary.partition(report)
    assert sum(part.ns for part in parts) == report.elapsed_ns
    assert Cause.UNKNOWN not in [part.cause for part in parts]  # it took no time
    page = page_of(report)
    rects = [rect for rect in page.all("rect") if rect.get("class", "").startswith("cause-")]
    assert [rect["class"] for rect in rects] == [f"cause-{part.cause}" for part in parts]
    ends = 0.0
    for rect in rects:
        assert float(rect["x"].rstrip("%")) == pytest.approx(ends, abs=1e-3)
        ends = float(rect["x"].rstrip("%")) + float(rect["width"].rstrip("%"))
    assert ends == pytest.approx(100, abs=1e-3)
    assert f"standoff: {report.causes[Cause.STANDOFF].ns:,} ns" in page.words


def test_nothing_wrong_is_said_plainly() -> None:
    page = page_of(report_factory.healthy())
    (heading,) = page.text_of("h1")
    assert heading == "Nothing waits on a rule of TCP: 60 exchanges took 1.53 ms, 43.2 % of it network."
    assert not page.all("details")


def test_no_exchange_is_said_plainly() -> None:
    page = page_of(report_factory.empty())
    assert page.text_of("h1") == ["No exchange was seen, so there is nothing to explain."]


def test_exchanges_that_took_no_time_divide_by_nothing() -> None:
    report = Report(
        capture=Capture(source="x"),
        exchanges=1,
        elapsed_ns=0,
        causes={Cause.NETWORK: CauseTotal(ns=0, exchanges=0)},
    )
    assert "took 0 ns" in page_of(report).words


@pytest.mark.parametrize(
    ("dropped", "words"), [(1, "1 flow could not be kept and is in"), (2, "2 flows could not")]
)
def test_dropped_flows_are_said_aloud(dropped: int, words: str) -> None:
    report = report_factory.healthy()
    capture = report.capture.model_copy(update={"dropped_flows": dropped})
    assert words in page_of(report.model_copy(update={"capture": capture})).words
    assert "could not be kept" not in page_of(report).words


class TestHostileNames:
    def test_they_make_no_elements(self) -> None:
        calm, hostile = page_of(report_factory.standoff()), page_of(report_factory.hostile())
        assert {tag for tag, _ in hostile.elements} == {tag for tag, _ in calm.elements}
        assert len(hostile.all("script")) == len(calm.all("script"))

    @pytest.mark.parametrize("name", report_factory.HOSTILE)
    def test_they_are_shown(self, name: str) -> None:
        report = report_factory.healthy()
        capture = report.capture.model_copy(update={"source": name})
        page = page_of(report.model_copy(update={"capture": capture}), title=name, subtitle=name)
        assert page.text_of("title")[0] == names.visible(name)
        assert page.text_of("bdi").count(names.visible(name)) == 3

    def test_nothing_hidden_is_left_anywhere(self) -> None:
        source = html.render(
            report_factory.hostile(),
            verdict=report_factory.verdict().model_copy(update={"words": " ".join(report_factory.HOSTILE)}),
            phases=[
                p.model_copy(update={"name": report_factory.HOSTILE[2]}) for p in report_factory.phases()
            ],
            title=report_factory.HOSTILE[3],
        )
        assert all(character == "\n" or character.isprintable() for character in source)
        source.encode()  # no lone surrogate

    def test_they_cannot_end_the_data(self) -> None:
        page = page_of(report_factory.hostile())
        data = next(text for tag, text in page.texts if tag == "script" and text.startswith("["))
        assert not set("<>&") & set(data)
        assert json.loads(data)[0]["texts"] == [names.visible(name) for name in report_factory.HOSTILE]


class TestFlowTable:
    def test_the_costliest_comes_first_and_the_rest_is_in_the_data(self) -> None:
        report = report_factory.many_flows(1_000)
        table = flow_table.table_of(report.flows)
        (time,) = [column for column in table.columns if column.label == "Time"]
        assert time.sort == sorted((flow.elapsed_ns for flow in report.flows), reverse=True)
        assert all(len(column.index) == 1_000 for column in table.columns)
        (client,) = [column for column in table.columns if column.label == "Client"]
        rebuilt = sorted(client.texts[number] for number in client.index)
        assert rebuilt == sorted(flow.client for flow in report.flows)

    def test_the_page_itself_carries_the_first_rows(self) -> None:
        page = page_of(report_factory.many_flows(1_000))
        rows = re.findall(r'<tr><td class="name">', page.source)
        assert len(rows) == flow_table.PLAIN_ROWS
        assert "the data of all 1,000 is in the file" in page.words

    def test_columns_without_content_are_left_out(self) -> None:
        labels = [column.label for column in flow_table.table_of(report_factory.healthy().flows).columns]
        assert "Its process" not in labels
        assert "Protocol" not in labels
        assert "Protocol" in [
            c.label for c in flow_table.table_of(report_factory.many_flows(1_000).flows).columns
        ]


def test_thirty_thousand_flows_fit() -> None:
    page = html.render(report_factory.many_flows(), title="many")
    assert len(page.encode()) < 5_000_000


def test_every_cause_has_a_colour_and_a_meaning() -> None:
    assert palette.CAUSES.keys() == summary.MEANINGS.keys() == set(Cause)


# Severity 1.0 of Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color
# Vision Deficiency" (2009), table 1; they apply to linear RGB.
SIGHT = {
    "full": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
def test_no_two_causes_look_alike(sight: str) -> None:
    seen = {cause: lab(SIGHT[sight] @ linear(colour)) for cause, colour in palette.CAUSES.items()}
    for one, other in combinations(Cause, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 14, (one, other)


@pytest.mark.parametrize("paper", palette.PAPER)
def test_every_cause_stands_out_from_the_paper(paper: str) -> None:
    ground = float((TO_XYZ @ linear(paper))[1])
    for cause, colour in palette.CAUSES.items():
        ink = float((TO_XYZ @ linear(colour))[1])
        lighter, darker = max(ink, ground), min(ink, ground)
        assert (lighter + 0.05) / (darker + 0.05) >= 1.6, cause


def test_the_papers_are_those_of_the_style_sheet() -> None:
    assert f"--paper: light-dark({', '.join(palette.PAPER)})" in html.source("report.css")


def test_fifty_findings_with_the_largest_plots_fit() -> None:
    rows = [
        {
            "at": n * 123_457, "way": n % 2, "seq": n // 2 * 1448 if n % 2 else 1, "bytes": 1448 * (n % 2),
            "ack": 1 if n % 2 else n // 2 * 1448, "window": 65_536 + n % 13 * 1448,
        }
        for n in range(MOST_SEGMENTS)
    ]  # fmt: skip
    sequence = drawing_factory.plot_of(
        rows, exchange=(0, rows[-1]["at"]), stalls=[(1, 2)], packet=tuple(range(len(rows)))
    )
    finding = report_factory.long_transfer_finding().model_copy(update={"sequence": sequence})
    report = report_factory.standoff().model_copy(update={"findings": [finding] * 50})
    assert len(html.render(report, title="fifty").encode()) < 5_000_000


def test_the_script_of_plots_is_there_only_if_there_is_one() -> None:
    assert "class SequencePlot" in page_of(report_factory.standoff()).source
    assert "class SequencePlot" not in page_of(report_factory.healthy()).source


def test_of_thousands_of_findings_the_worst_are_drawn_and_all_are_told() -> None:
    report = report_factory.standoff()
    finding = report.findings[0]
    many = [
        finding.model_copy(
            update={
                "server": f"10.77.0.2:{7000 + n}",
                "lost_ns": finding.lost_ns.model_copy(update={"total": 10**9 - n}),
            }
        )
        for n in range(1000)
    ]
    page = html.render(report.model_copy(update={"findings": many}), title="many")
    assert page.count('class="ladder cause-') == html.DRAWN_FINDINGS
    assert page.count('class="finding ') == len(many)
    assert "10.77.0.2:7999" in page
    assert len(page.encode()) < 5_000_000


def test_remedies_stand_in_the_order_of_the_diagnosis() -> None:
    """Of two that save about as much the one comes first that can be had without changing a program."""
    report = report_factory.standoff()
    finding = report.findings[0]
    first, second = finding.remedies[:2]
    second = second.model_copy(update={"saves_ns": first.saves_ns + 1})
    changed = finding.model_copy(update={"remedies": [first, second]})
    page = html.render(report.model_copy(update={"findings": [changed]}), title="order")
    remedies = page[page.index('class="remedies"') :]
    assert remedies.index(f">{first.name}<") < remedies.index(f">{second.name}<")
