"""The report page, open in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.report.browser import Browser, Opened
from tests.unit import report_factory

from ackward.model.report import Report
from ackward.report import html


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Opened:
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
