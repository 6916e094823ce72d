"""The report page in a real browser: no request, no complaint, and a table that sorts and searches."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.unit import report_factory

from ackward.model.causes import Cause
from ackward.model.report import Report
from ackward.report import flow_table, html, units
from ackward.report.names import visible

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="probe `which chromium` failed: no browser is installed"
)

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
TIMEOUT = 60.0


class Browser:
    """Chromium's DevTools protocol over descriptors 3 and 4: JSON, each message ended by a zero byte."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        with ExitStack() as stack:
            from_us, self._commands = os.pipe()
            self._events, to_us = os.pipe()
            for descriptor in (from_us, to_us):
                stack.callback(os.close, descriptor)
            # Above 4, so that placing one cannot overwrite the other.
            theirs = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (from_us, to_us)]
            for descriptor in theirs:
                stack.callback(os.close, descriptor)

            def place() -> None:
                os.dup2(theirs[0], 3)
                os.dup2(theirs[1], 4)

            self.process = subprocess.Popen(
                [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
                pass_fds=(3, 4), preexec_fn=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={**os.environ, "HOME": str(profile)},
            )  # fmt: skip
        self._received = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """Call a method and give back its result; events that come first are kept in ``events``."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]  # type: ignore[no-any-return]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._events], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser said nothing for {TIMEOUT} s"
            chunk = os.read(self._events, 1 << 20)
            assert chunk, "the browser closed its pipe"
            self._received += chunk
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]

    def open(self, url: str) -> None:
        """Load a page to its load event."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until(lambda: any(event.get("method") == "Page.loadEventFired" for event in self.events))

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression (a promise is awaited)."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, condition: Callable[[], bool]) -> None:
        """Poll until the condition holds; each poll lets events in."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, "the page did not get there"
            self.call("Runtime.evaluate", expression="0")

    def of(self, *methods: str) -> list[dict[str, Any]]:
        """What the browser reported so far under these methods."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    def complaints(self) -> list[object]:
        """Exceptions, console messages, log entries and blocked content since the page was opened."""
        issues = [
            issue
            for issue in self.of("Audits.issueAdded")
            if issue["issue"]["code"] == "ContentSecurityPolicyIssue"
        ]
        return [*self.of("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"), *issues]

    def requests(self) -> list[str]:
        """Each address asked for since the page was opened, the page and data: (which asks nobody) apart."""
        urls = [request["request"]["url"] for request in self.of("Network.requestWillBeSent")]
        return [url for url in urls[1:] if not url.startswith("data:")]

    def close(self) -> None:
        """End the browser and wait for it."""
        self._session = None
        try:
            self.call("Browser.close")
        finally:
            try:
                self.process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            os.close(self._commands)
            os.close(self._events)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Callable[[Report], Browser]:
    def render(report: Report) -> Browser:
        path = tmp_path / "report.html"
        page = html.render(
            report,
            verdict=report_factory.verdict(),
            phases=report_factory.phases(),
            title="a page",
            subtitle="a test",
        )
        path.write_text(page, encoding="utf-8")
        browser.open(path.as_uri())
        return browser

    return render


Opened = Callable[[Report], Browser]

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


# The time-sequence plot: driven as a user drives it, with real mouse, wheel, keys and touch.

PLOT = "document.querySelector('svg.sequence')"


class Plot:
    """The first plot of a page."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        browser.js(f"{PLOT}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        browser.until(lambda: browser.js(f"{PLOT}.dataset.x !== undefined"))
        # Let the scroll event pass: a wheel that comes with one belongs to the page.
        browser.js("new Promise(done => setTimeout(done, 350))")
        self.home = self.range

    @property
    def range(self) -> tuple[list[float], list[float]]:
        """What is in sight: times in nanoseconds and bytes."""
        x, y = self.browser.js(f"[{PLOT}.dataset.x, {PLOT}.dataset.y]")
        return [float(n) for n in x.split()], [float(n) for n in y.split()]

    def at(self, moment: float, seq: float) -> dict[str, float]:
        """Where on the screen a point of the plot is, by the ground's rectangle and the range alone."""
        box = self.browser.js(
            f"(() => {{ const box = {PLOT}.querySelector('.ground').getBoundingClientRect();"
            "return [box.left, box.top, box.width, box.height]; })()"
        )
        (x0, x1), (y0, y1) = self.range
        return {
            "x": box[0] + (moment - x0) / (x1 - x0) * box[2],
            "y": box[1] + (y1 - seq) / (y1 - y0) * box[3],
        }

    def mouse(self, kind: str, moment: float, seq: float, **more: object) -> None:
        self.browser.call("Input.dispatchMouseEvent", type=kind, **self.at(moment, seq), **more)

    def key(self, key: str, *, shift: bool = False) -> None:
        for kind in ("keyDown", "keyUp"):
            self.browser.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 if shift else 0)

    @property
    def tip(self) -> str:
        """What the tip says, empty if there is none."""
        return self.browser.js(  # type: ignore[no-any-return]
            "(() => { const tip = document.querySelector('.tip');"
            "return tip.hidden ? '' : tip.innerText.replaceAll('\\n', ' | '); })()"
        )

    @property
    def layers(self) -> list[str]:
        """The layers that are drawn."""
        return self.browser.js(  # type: ignore[no-any-return]
            f"[...{PLOT}.querySelectorAll('path.layer')].map(path => path.classList[1]).sort()"
        )

    def press(self, text: str) -> None:
        self.browser.js(
            "[...document.querySelectorAll('.plot-bar button')]"
            f".find(button => button.textContent === {json.dumps(text)}).click()"
        )


def lossy() -> Report:
    finding = report_factory.long_transfer_finding()
    return report_factory.standoff().model_copy(update={"findings": [finding]})


@pytest.fixture
def plot(opened: Opened) -> Plot:
    return Plot(opened(lossy()))


@pytest.fixture
def quiet(plot: Plot) -> Iterator[Plot]:
    """A plot whose page must not complain or ask for anything, whatever is done to it."""
    yield plot
    assert plot.browser.complaints() == []
    assert plot.browser.requests() == []


def width(span: list[float]) -> float:
    return span[1] - span[0]


def test_a_plot_draws_each_layer_and_names_its_stall(quiet: Plot) -> None:
    assert quiet.layers == ["ack", "again", "data", "sack", "window"]
    stalls = f"[...{PLOT}.querySelectorAll('.stalled')].map(text => text.textContent)"
    assert quiet.browser.js(stalls) == ["retransmission-timeout 80.0 ms"]
    shaded = f"getComputedStyle({PLOT}.querySelector('.stall')).fill"
    assert quiet.browser.js(shaded) == "rgb(162, 95, 249)"  # the cause's colour
    plot = report_factory.lossy_sequence()
    assert quiet.home[0][0] < 0
    assert quiet.home[0][1] > plot.elapsed_ns


def test_hovering_names_the_segment_under_the_pointer(quiet: Plot) -> None:
    plot = report_factory.lossy_sequence()
    [again] = plot.again
    quiet.mouse("mouseMoved", plot.at_ns[again], plot.seq[again] + 724)
    assert quiet.tip == (
        f"+160.400 ms, server to client, seen at the server | seq 86,881 to 88,329 (1,448 B), ACK | ack 181 | "
        f"sent again: these bytes were seen before | packet {plot.packet[again] + 1} of the capture"
    )
    closed = plot.window.index(0)
    quiet.mouse("mouseMoved", plot.at_ns[closed], plot.ack[closed] or 0)
    assert "client to server" in quiet.tip
    assert "ack 144,801, window 0 B (to 144,801) | the window is closed" in quiet.tip
    quiet.mouse("mouseMoved", quiet.home[0][0], quiet.home[1][1])  # a corner without a point
    assert quiet.tip == ""
    last_sack = max(row for row, left in enumerate(plot.sack_left) if left is not None)
    quiet.mouse("mouseMoved", plot.at_ns[last_sack], (plot.sack_right[last_sack] or 0) - 10_000)
    assert "SACK 88,329 to 144,801" in quiet.tip


def test_the_wheel_zooms_about_the_pointer(quiet: Plot) -> None:
    point = (160_000_000, 100_000)
    before = quiet.at(*point)
    quiet.mouse("mouseWheel", *point, deltaX=0, deltaY=-120)
    quiet.browser.until(lambda: quiet.range != quiet.home)
    assert width(quiet.range[0]) < 0.9 * width(quiet.home[0])
    assert width(quiet.range[1]) < 0.9 * width(quiet.home[1])
    assert quiet.at(*point) == pytest.approx(before, abs=0.5)
    once = quiet.range
    quiet.mouse("mouseWheel", *point, deltaX=0, deltaY=-120, modifiers=8)  # Shift
    quiet.browser.until(lambda: quiet.range != once)
    assert quiet.range[1] == once[1]
    assert width(quiet.range[0]) < 0.9 * width(once[0])
    for count in (1, 2):
        for kind in ("mousePressed", "mouseReleased"):
            quiet.mouse(kind, *point, button="left", clickCount=count)
    assert quiet.range == quiet.home


def test_a_wheel_that_scrolls_the_page_past_a_plot_goes_on_scrolling(quiet: Plot) -> None:
    quiet.mouse("mouseWheel", 0, 100_000, deltaX=0, deltaY=120)  # all is shown: nothing to zoom out
    quiet.browser.until(lambda: quiet.browser.js("scrollY") > 0)
    assert quiet.range == quiet.home


def test_dragging_moves_and_stops_at_the_edge(quiet: Plot) -> None:
    quiet.press("+")
    quiet.press("+")
    start = quiet.range
    middle = [sum(span) / 2 for span in start]
    seen = quiet.at(*middle)
    quiet.mouse("mousePressed", *middle, button="left", clickCount=1)
    quiet.browser.call(
        "Input.dispatchMouseEvent",
        type="mouseMoved",
        x=seen["x"] + 60,
        y=seen["y"] + 20,
        button="left",
        buttons=1,
    )
    assert quiet.at(*middle) == pytest.approx({"x": seen["x"] + 60, "y": seen["y"] + 20}, abs=0.5)
    quiet.browser.call(
        "Input.dispatchMouseEvent",
        type="mouseMoved",
        x=seen["x"] + 9_000,
        y=seen["y"],
        button="left",
        buttons=1,
    )
    assert quiet.range[0][0] == quiet.home[0][0]
    assert width(quiet.range[0]) == pytest.approx(width(start[0]))
    quiet.mouse("mouseReleased", *middle, button="left", clickCount=1)


def test_the_keyboard_does_all_that_the_mouse_does(quiet: Plot) -> None:
    quiet.browser.js(f"{PLOT}.focus()")
    quiet.key("+")
    zoomed = quiet.range
    assert width(zoomed[0]) < width(quiet.home[0])
    quiet.key("x")
    assert width(quiet.range[0]) < width(zoomed[0])
    assert quiet.range[1] == zoomed[1]
    narrow = quiet.range
    quiet.key("ArrowRight")
    assert quiet.range[0][0] > narrow[0][0]
    quiet.key("X", shift=True)
    quiet.key("-")
    quiet.key("0")
    assert quiet.range == quiet.home
    quiet.key("n")
    assert quiet.tip.startswith("+0.000 ms, server to client")
    for _ in range(3):
        quiet.key("+")
    quiet.key("p")
    assert quiet.tip.startswith("+0.000 ms")  # it is the first
    for _ in range(250):
        quiet.key("n")
    assert "+322.099 ms" in quiet.tip
    last = quiet.range
    assert last[0][0] < 322_099_000 < last[0][1]  # scrolled into view
    quiet.key("Escape")
    assert quiet.tip == ""


def test_the_legend_takes_layers_away_and_brings_them_back(quiet: Plot) -> None:
    quiet.press("SACK")
    quiet.press("Window")
    assert quiet.layers == ["ack", "again", "data"]
    pressed = "[...document.querySelectorAll('.plot-bar .layer:not([hidden])')].map(b => b.ariaPressed)"
    assert quiet.browser.js(pressed) == ["true", "true", "true", "false", "false"]
    plot = report_factory.lossy_sequence()
    sack = max(row for row, left in enumerate(plot.sack_left) if left is not None)
    quiet.mouse("mouseMoved", plot.at_ns[sack], (plot.sack_left[sack] or 0) + 35_000)
    assert "SACK" not in quiet.tip  # what is not drawn is not found
    quiet.press("SACK")
    assert quiet.layers == ["ack", "again", "data", "sack"]
    quiet.press("Client to server")
    assert quiet.layers == ["ack"]  # no byte went there
    quiet.press("Server to client")
    assert quiet.layers == ["ack", "again", "data", "sack"]


def test_two_fingers_zoom_and_one_pans(browser: Browser, opened: Opened) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True
    )
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    try:
        plot = Plot(opened(lossy()))
        box = browser.js(f"(() => {{ const b = {PLOT}.getBoundingClientRect(); return [b.left, b.top]; }})()")

        def touch(kind: str, *points: tuple[float, float]) -> None:
            fingers = [{"x": box[0] + x, "y": box[1] + y, "id": n} for n, (x, y) in enumerate(points)]
            browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

        touch("touchStart", (150, 120))
        touch("touchStart", (150, 120), (250, 200))
        for step in (20, 40, 60):
            touch("touchMove", (150 - step, 120 - step), (250 + step, 200 + step))
        touch("touchEnd")
        browser.until(lambda: width(plot.range[0]) < 0.7 * width(plot.home[0]))
        assert width(plot.range[1]) < 0.7 * width(plot.home[1])
        before = plot.range
        touch("touchStart", (250, 150))
        for x in (230, 200, 160):
            touch("touchMove", (x, 150))
        touch("touchEnd")
        browser.until(lambda: plot.range[0][0] > before[0][0])
        assert browser.js("document.documentElement.scrollWidth") <= 390
        assert browser.complaints() == []
    finally:
        browser.call("Emulation.setTouchEmulationEnabled", enabled=False)
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_fifty_plots_are_drawn_when_their_cards_are_opened(opened: Opened) -> None:
    finding = report_factory.long_transfer_finding()
    browser = opened(report_factory.standoff().model_copy(update={"findings": [finding] * 50}))
    made = "document.querySelectorAll('svg.sequence').length"
    assert browser.js("document.querySelectorAll('.sequence-plot').length") == 50
    assert browser.js(made) == html.OPEN_FINDINGS
    browser.js("document.querySelectorAll('details')[30].open = true")
    browser.until(lambda: browser.js(made) == html.OPEN_FINDINGS + 1)
    drawn = "document.querySelectorAll('details')[30].querySelectorAll('svg.sequence path.layer').length"
    browser.until(lambda: browser.js(drawn) == 5)
    assert browser.complaints() == []


def test_two_thousand_segments_zoom_without_delay(opened: Opened) -> None:
    size = 1448
    rows = [
        {"at": n * 20_000, "way": n % 2, "seq": n // 2 * size if n % 2 else 1, "bytes": size * (n % 2),
         "ack": 1 if n % 2 else n // 2 * size, "window": 65_536}
        for n in range(2_000)
    ]  # fmt: skip
    sequence = report_factory.plot_of(rows, exchange=(0, 40_000_000), stalls=[(1, 2)])
    finding = report_factory.standoff_finding().model_copy(update={"sequence": sequence})
    plot = Plot(opened(report_factory.standoff().model_copy(update={"findings": [finding]})))
    took = plot.browser.js(
        "(() => { const start = performance.now(); const [zoom] = document.querySelectorAll('[title=\"Zoom in\"]');"
        "for (let n = 0; n < 20; n += 1) zoom.click(); return (performance.now() - start) / 20; })()"
    )
    assert took < 100  # some 5 ms on an idle machine
    assert width(plot.range[0]) < width(plot.home[0]) / 1_000


def test_a_plot_follows_the_theme(quiet: Plot) -> None:
    stroke = f"getComputedStyle({PLOT}.querySelector('path.layer.data')).stroke"
    light = quiet.browser.js(stroke)
    quiet.browser.js("document.getElementById('theme').click()")
    assert {light, quiet.browser.js(stroke)} == {"rgb(27, 31, 36)", "rgb(228, 231, 235)"}


def test_without_its_script_a_page_has_no_empty_plot(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "plain.html"
    path.write_text(html.render(lossy(), title="plain"))
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(path.as_uri())
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.js("document.querySelector('.sequence-plot').getBoundingClientRect().height") == 0
