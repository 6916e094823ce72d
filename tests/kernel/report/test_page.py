"""The report page in a real browser: no request, no complaint, and a table that sorts and searches."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.kernel.report.browser import Browser, Opened, needs_chromium
from tests.unit import report_factory

from ackward.model import units
from ackward.model.causes import Cause
from ackward.model.names import visible
from ackward.report import flow_table, html

pytestmark = needs_chromium

REPORTS = {
    "standoff": report_factory.standoff,
    "healthy": report_factory.healthy,
    "hostile": report_factory.hostile,
    "many": report_factory.many_flows,
    "empty": report_factory.empty,
}

ROWS = "[...document.querySelectorAll('#flow-table tbody tr:not(.spacer)')]"
TEXTS = f"{ROWS}.map(row => [...row.cells].map(cell => cell.textContent.trim()))"


def column(browser: Browser, label: str) -> list[str]:
    """The texts of one column, of the rows that stand in the document."""
    heads = browser.js("[...document.querySelectorAll('#flow-table thead th')].map(th => th.textContent)")
    return [row[heads.index(label)] for row in browser.js(TEXTS)]


def click_head(browser: Browser, label: str) -> None:
    browser.js(
        "[...document.querySelectorAll('#flow-table thead button')]"
        f".find(button => button.textContent === {json.dumps(label)}).click()"
    )


def search(browser: Browser, words: str) -> str:
    """Type into the search box; the words of its status line."""
    return browser.js(  # type: ignore[no-any-return]
        "(() => { const box = document.querySelector('#search input');"
        f"box.value = {json.dumps(words)}; box.dispatchEvent(new Event('input'));"
        "return document.getElementById('shown').textContent; })()"
    )


@pytest.mark.parametrize("name", REPORTS)
def test_no_request_no_complaint_and_its_own_style_and_script_run(opened: Opened, name: str) -> None:
    browser = opened(REPORTS[name]())
    assert browser.requests() == []
    assert browser.complaints() == []
    assert browser.js("document.documentElement.classList.contains('scripted')"), "the script was blocked"
    assert browser.js("getComputedStyle(document.querySelector('h1')).fontWeight") == "650", (
        "the style was blocked"
    )


def test_the_probes_above_do_see_requests_and_blocked_content(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    page = html.render(report_factory.healthy(), title="bad")
    bad = page.replace(
        "</main>", "<img src='http://127.0.0.1:1/x.png'><script>1</script><p style='color:red'>x</p></main>"
    )
    path.write_text(bad)
    browser.open(path.as_uri())
    browser.until(lambda: len(browser.of("Log.entryAdded")) >= 3)
    assert browser.complaints()
    path.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", bad))
    browser.open(path.as_uri())
    assert browser.requests() == ["http://127.0.0.1:1/x.png"]


def test_hostile_names_run_nothing_and_are_seen(opened: Opened) -> None:
    browser = opened(report_factory.hostile())
    assert browser.of("Page.javascriptDialogOpening") == []
    assert browser.js("document.images.length") == 0
    assert browser.js("document.scripts.length") == 3  # the page's own, the table's data and the plot's
    shown = column(browser, "Client")
    assert shown == [visible(name) for name in report_factory.HOSTILE]


def test_the_script_writes_the_rows_that_the_page_came_with(
    opened: Opened, browser: Browser, tmp_path: Path
) -> None:
    report = report_factory.many_flows(2_000)
    path = tmp_path / "plain.html"
    path.write_text(html.render(report, title="plain"))
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(path.as_uri())
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    plain = browser.js(TEXTS)
    assert len(plain) == flow_table.PLAIN_ROWS
    assert browser.js("document.getElementById('search').hidden")
    opened(report)
    scripted = browser.js(TEXTS)
    assert scripted == plain[: len(scripted)]
    assert len(scripted) > 20


def test_sorting(opened: Opened) -> None:
    report = report_factory.many_flows(2_000)
    browser = opened(report)
    by_time = sorted((flow.elapsed_ns for flow in report.flows), reverse=True)
    assert column(browser, "Time")[:20] == [units.duration(ns) for ns in by_time[:20]]
    click_head(browser, "Time")
    assert column(browser, "Time")[:20] == [units.duration(ns) for ns in by_time[::-1][:20]]
    click_head(browser, "To client")
    most = sorted((flow.bytes_to_client for flow in report.flows), reverse=True)
    assert column(browser, "To client")[:20] == [units.size(octets) for octets in most[:20]]
    click_head(browser, "Worst cause")
    assert column(browser, "Worst cause")[0] == "accept-queue"
    click_head(browser, "Client")  # 10.2 before 10.10: numbers in names count as numbers
    shown = [tuple(map(int, re.findall(r"\d+", name))) for name in column(browser, "Client")]
    assert shown == sorted(shown)
    heads = browser.js(
        "[...document.querySelectorAll('#flow-table th[aria-sort]')].map(th => th.textContent)"
    )
    assert heads == ["Client"]


def test_searching(opened: Opened) -> None:
    report = report_factory.many_flows(2_000)
    browser = opened(report)
    matching = [
        flow
        for flow in report.flows
        if flow.worst_cause is Cause.STANDOFF
        and flow.server_process
        and flow.server_process.command == "svc-03"
    ]
    assert matching
    assert search(browser, "SVC-03 standoff") == f"{len(matching)} of 2,000"
    assert sorted(column(browser, "Client")) == sorted(flow.client for flow in matching)
    click_head(browser, "Exchanges")  # sorting keeps the search
    assert sorted(column(browser, "Client")) == sorted(flow.client for flow in matching)
    assert search(browser, "no such name") == "0 of 2,000"
    assert column(browser, "Client") == []
    assert search(browser, "") == ""
    assert len(column(browser, "Client")) > 20


def test_thirty_thousand_rows_scroll_sort_and_search_at_once(opened: Opened) -> None:
    report = report_factory.many_flows()
    browser = opened(report)
    assert browser.js(f"{ROWS}.length") < 200  # only what is in sight is in the document
    least = min(report.flows, key=lambda flow: flow.elapsed_ns)
    browser.js("document.querySelector('.flows').scrollTop = 1e9")
    browser.until(lambda: column(browser, "Time")[-1:] == [units.duration(least.elapsed_ns)])
    took = browser.js(
        "(() => { const start = performance.now();"
        "document.querySelectorAll('#flow-table thead button')[0].click();"
        "const box = document.querySelector('#search input'); box.value = 'svc-1 stand';"
        "box.dispatchEvent(new Event('input')); return performance.now() - start; })()"
    )
    assert took < 2_000  # some 150 ms on an idle machine
    assert search(browser, "mptcp").endswith(" of 30,000")


def test_the_theme_follows_the_system_and_the_switch(opened: Opened) -> None:
    browser = opened(report_factory.standoff())
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        browser.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        seen[scheme] = browser.js(paper)
    assert seen == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
    browser.js("document.getElementById('theme').click()")
    assert browser.js(paper) == seen["light"]
    browser.call("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("name", ["standoff", "hostile", "many"])
def test_a_phone_needs_no_sideways_scrolling(opened: Opened, browser: Browser, name: str) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True
    )
    try:
        opened(REPORTS[name]())
        assert browser.js("document.documentElement.scrollWidth") <= 390
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_labels_of_a_ladder_do_not_overlap_as_the_browser_draws_them(opened: Opened) -> None:
    browser = opened(report_factory.many_flows(10))
    overlaps = browser.js(
        """[...document.querySelectorAll("svg.ladder")].flatMap(svg => {
            const boxes = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBBox()]);
            return boxes.flatMap(([one, a], at) => boxes.slice(at + 1).filter(([, b]) =>
                a.x < b.x + b.width && b.x < a.x + a.width &&
                a.y + 2 < b.y + b.height && b.y + 2 < a.y + a.height)
                .map(([other]) => [one, other]));
        })"""
    )
    assert overlaps == []
    outside = browser.js(
        """[...document.querySelectorAll("svg.ladder")].flatMap(svg => [...svg.querySelectorAll("text")]
            .filter(text => { const box = text.getBBox(), view = svg.viewBox.baseVal;
                return box.x < 0 || box.x + box.width > view.width || box.y + box.height > view.height; })
            .map(text => text.textContent))"""
    )
    assert outside == []


def test_a_command_is_copied_or_at_least_selected_whole(opened: Opened) -> None:
    browser = opened(report_factory.standoff())
    browser.js("document.querySelector('.command button').click()")
    assert browser.js("getSelection().toString()") == report_factory.COMMAND
    browser.until(
        lambda: (
            browser.js("document.querySelector('.command button').textContent") in ("Copied", "Press Ctrl-C")
        )
    )
    assert browser.complaints() == []
