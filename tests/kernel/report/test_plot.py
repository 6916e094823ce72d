"""The time-sequence plot in a real browser: driven as a user drives it, with real mouse, wheel, keys and touch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.report.browser import Browser, Opened, needs_chromium
from tests.unit import drawing_factory, report_factory

from ackward.model.report import Report
from ackward.report import html

pytestmark = needs_chromium

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
    plot = drawing_factory.lossy_sequence()
    assert quiet.home[0][0] < 0
    assert quiet.home[0][1] > plot.elapsed_ns


def test_hovering_names_the_segment_under_the_pointer(quiet: Plot) -> None:
    plot = drawing_factory.lossy_sequence()
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
    plot = drawing_factory.lossy_sequence()
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
    sequence = drawing_factory.plot_of(rows, exchange=(0, 40_000_000), stalls=[(1, 2)])
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
