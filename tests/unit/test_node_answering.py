"""What an agent says of itself over its socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ackward.model.node import Form
from ackward.node import answering
from ackward.node.wire import Answer


@contextmanager
def saying(path: Path, data: bytes) -> Iterator[None]:
    """Somebody who answers each question with these bytes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1 << 16)
                client.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize("form", list(Form))
def test_form_and_reasons_arrive(tmp_path: Path, form: Form) -> None:
    with saying(tmp_path / "s", answering.answer(form, {"entry": "no \u2026"}).pack()):
        told = answering.ask(tmp_path / "s")
    assert told == answering.Told(form=form, reasons={"entry": "no \u2026"})


def test_an_agent_that_does_not_tell_is_of_another_version(tmp_path: Path) -> None:
    with saying(tmp_path / "s", Answer().pack()):
        told = answering.ask(tmp_path / "s")
    assert told
    assert told.form is None
    assert "another version" in told.reasons["agent"]
    assert "Next: " in told.reasons["agent"]


@pytest.mark.parametrize("data", [b"", b"ackcni/1", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_who_does_not_speak_our_protocol_is_no_agent(tmp_path: Path, data: bytes) -> None:
    with saying(tmp_path / "s", data):
        assert answering.ask(tmp_path / "s") is None
    assert answering.ask(tmp_path / "nobody") is None
