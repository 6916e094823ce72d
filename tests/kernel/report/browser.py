"""A real browser, driven over its DevTools protocol."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.polling import eventually

from ackward.model.report import Report

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_chromium = pytest.mark.skipif(
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

        def holds() -> bool:
            self.call("Runtime.evaluate", expression="0")
            return condition()

        assert eventually(holds, within=TIMEOUT), "the page did not get there"

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


Opened = Callable[[Report], Browser]
