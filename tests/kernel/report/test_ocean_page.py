"""The page of the experiment ``ocean`` in a real browser: nothing of a picture or of a bar's words is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kernel.report.browser import Browser, needs_chromium
from tests.unit import ocean_factory

from ackward.report import ocean_page

pytestmark = needs_chromium

#: Words and pictures that reach beyond the page's column; a table may, it scrolls by itself.
CUT_OFF = """[...document.querySelectorAll("svg.ocean text, svg.ocean rect, img, .legend li, .conclusions li")]
    .filter(each => { const column = document.querySelector("main").getBoundingClientRect();
        const box = each.getBoundingClientRect();
        return box.width && (box.left < column.left - 0.5 || box.right > column.right + 0.5); })
    .map(each => each.textContent || each.tagName)"""
#: Words whose box meets a bar or a mark, which would be hard to read.
HIDDEN = """[...document.querySelectorAll("svg.ocean")].flatMap(svg => {
    const boxes = kind => [...svg.querySelectorAll(kind)].map(each => each.getBoundingClientRect());
    return boxes("text").filter(text => boxes("rect, line").some(bar =>
        text.top + 2 < bar.bottom && bar.top + 2 < text.bottom && text.left < bar.right)); }).length"""


@pytest.mark.parametrize("width", [1300, 1000, 821, 820, 420, 360])
def test_nothing_is_cut_off_at_any_width(browser: Browser, tmp_path: Path, width: int) -> None:
    path = tmp_path / "ocean.html"
    path.write_text(ocean_page.render(ocean_factory.crossed()), encoding="utf-8")
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    try:
        browser.open(path.as_uri())
        assert browser.js("innerWidth") == width
        assert browser.js("document.documentElement.scrollWidth") <= width
        assert browser.js(CUT_OFF) == []
        assert browser.js(HIDDEN) == 0
        shown = browser.js("(i => [i.naturalWidth, i.naturalHeight, i.width, i.height])(document.images[0])")
        own_wide, own_high, wide, high = shown
        assert wide <= own_wide
        assert high / wide == pytest.approx(own_high / own_wide, rel=0.01)
        assert wide / own_wide > 0.6  # still to be read
        assert browser.complaints() == []
        assert browser.requests() == []
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")


def test_the_ladders_own_words_are_inside_their_picture(browser: Browser, tmp_path: Path) -> None:
    from ackward.report.split_ladder import draw

    for panels in (1, 3):
        path = tmp_path / f"ladder-{panels}.svg"
        path.write_text(draw(ocean_factory.crossed().prediction, panels=panels), encoding="utf-8")
        browser.open(path.as_uri())
        outside = browser.js(
            """(view => [...document.querySelectorAll("text")].filter(text => {
                const box = text.getBoundingClientRect(), whole = document.documentElement.getBoundingClientRect();
                return box.left < whole.left || box.right > whole.right || box.bottom > whole.bottom; })
                .map(text => text.textContent))()"""
        )
        assert outside == []
