"""The agent's page server: who is slow or many keeps nobody out, and what fails on our side is told."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from tests.polling import eventually

from ackward.node import health

WITHIN = 10.0


def broken() -> health.Answer:
    raise ValueError("no number")


@pytest.fixture
def place() -> Iterator[tuple[str, int]]:
    pages = {"/fine": lambda: health.verdict({}), "/broken": broken}
    with health.served("127.0.0.1", 0, pages) as place:
        yield place


def asked(place: tuple[str, int], page: str) -> int:
    """The status of a page; 0 where the server ends the conversation instead."""
    try:
        with urllib.request.urlopen(f"http://{place[0]}:{place[1]}{page}", timeout=WITHIN) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_what_is_not_there_is_said_in_plain_text(place: tuple[str, int]) -> None:
    with (
        pytest.raises(urllib.error.HTTPError) as caught,
        urllib.request.urlopen(f"http://{place[0]}:{place[1]}/x"),
    ):
        pass
    with caught.value as answer:
        assert (answer.code, answer.headers.get_content_type()) == (404, "text/plain")
        assert answer.read() == b"404 Not Found: /metrics, /healthz and /readyz are there\n"


def test_who_sends_a_byte_now_and_then_is_cut(
    place: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_SECONDS", 0.5)
    with contextlib.ExitStack() as ending:
        slow = [ending.enter_context(socket.create_connection(place, timeout=WITHIN)) for _ in range(8)]
        for client in slow:
            client.sendall(b"GET /fine HTTP/1.1\r\nX: ")
        assert eventually(lambda: asked(place, "/fine") == 0)  # all conversations are taken

        def served_beside_them() -> bool:
            for client in slow:
                with contextlib.suppress(OSError):
                    client.sendall(b"x")
            return asked(place, "/fine") == 200

        assert eventually(served_beside_them), "eight slow clients keep everybody out"


def test_a_moment_without_threads_costs_no_conversation(
    place: tuple[str, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with caplog.at_level(logging.INFO, "ackward.node"):
        with monkeypatch.context() as starved:
            starved.setattr(threading.Thread, "start", none_left)
            assert [asked(place, "/fine") for _ in range(9)] == [0] * 9
        assert asked(place, "/fine") == 200
    assert "can't start new thread" in caplog.records[0].fields["error"]  # type: ignore[attr-defined]


def test_a_page_that_fails_is_told(place: tuple[str, int], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ackward.node"):
        assert asked(place, "/broken") == 0
        assert eventually(lambda: caplog.records)
    assert caplog.records[0].fields == {"error": "ValueError: no number"}  # type: ignore[attr-defined]
