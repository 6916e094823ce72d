"""The control socket: who asks, who answers, gateways that start at the same moment, and what killed ones left."""

from __future__ import annotations

import json
import select
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from ackward.errors import UnknownName, UsageError
from ackward.gateway import control


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "gateway"
    monkeypatch.setattr(control, "DIRECTORY", made)
    return made


def test_none_that_starts_takes_another_s_socket_for_a_dead_one(directory: Path) -> None:
    names = [f"g{number}" for number in range(8)]
    for _ in range(25):
        with ExitStack() as stack, ThreadPoolExecutor(len(names)) as pool:
            for made in pool.map(lambda name: control.Control(name, lambda _: {}), names):
                stack.callback(made.close)
            assert control.running() == names
    assert not directory.exists()


def test_what_killed_ones_left_goes_with_the_next_start(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(directory / "killed.sock"))
    assert control.running() == []
    made = control.Control("next", lambda _: {})
    assert [path.name for path in directory.iterdir()] == ["next.sock"]
    made.close()


@pytest.fixture
def served(directory):
    ends = []

    def serve(name="one", answer=lambda what: {"what": what}):
        made = control.Control(name, answer)
        ends.append(made)
        return made

    yield serve
    for end in ends:
        end.close()
    assert not list(directory.glob("*.sock"))


def asked(made, *arguments):
    """Ask in another thread while this one serves."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(control.ask(*arguments)))
    thread.start()
    while thread.is_alive():
        select.select([made.socket], [], [], 0.05)
        made.serve()
    thread.join(5)
    return answers[0]


def test_a_request_is_answered(served):
    made = served()
    assert asked(made, "one", "status") == {"what": "status"}
    assert asked(made, None, "drain") == {"what": "drain"}, "the only gateway needs no name"


def test_the_socket_is_for_its_owner_alone(served):
    served()
    assert control.path_of("one").stat().st_mode & 0o777 == 0o600
    assert control.DIRECTORY.stat().st_mode & 0o777 == 0o700


def test_a_second_gateway_of_the_name_is_refused_and_a_dead_ones_socket_taken_over(served):
    served()
    with pytest.raises(UsageError, match="runs already"):
        control.Control("one", lambda _: {})
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(control.path_of("two")))
    dead.close()
    made = served("two")
    assert asked(made, "two", "status") == {"what": "status"}
    with pytest.raises(UsageError, match="several gateways run here: one, two"):
        control.ask(None, "status")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            {"draining": {"since": 1.0, "left": 58.6}, "connections": 1},
            r"drains, with 1 connection open\. .* wait until it has ended \(58\.6 s at the latest\), or give this one",
        ),
        ({"draining": None, "connections": 1}, "runs already"),
        ({"error": "nothing is known of 'drains'"}, "runs already"),
    ],
)
def test_of_a_gateway_that_drains_already_it_is_said(served, said, told):
    made = served(answer=lambda what: said if what == "drains" else {})
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(control.Control, "one", lambda _: {})
        while not started.done():
            select.select([made.socket], [], [], 0.05)
            made.serve()
    with pytest.raises(UsageError, match=told):
        started.result()


def test_nobody_answers(served):
    made = served()
    made.close()
    with pytest.raises(UnknownName, match="no gateway runs here"):
        control.ask(None, "status")
    with pytest.raises(UnknownName, match="no gateway named 'one'"):
        control.ask("one", "status")


@pytest.mark.parametrize(
    "request_", [b"", b"\n", b"{}\n", b"[1]\n", b"x" * 10_000, b'{"do": {}}\n', b"\xff\n"]
)
def test_a_bad_request_is_answered_or_closed_and_hurts_nobody(served, request_):
    made = served()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(control.path_of("one")))
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        made.serve()
        client.settimeout(5)
        answer = b""
        with suppress(ConnectionResetError):  # it did not read all of the nonsense
            answer = client.recv(4096)
    if answer:
        assert isinstance(json.loads(answer), dict)
    assert asked(made, "one", "status") == {"what": "status"}


def test_a_file_in_the_sockets_place_is_not_removed(served):
    served()
    path = control.path_of("three")
    path.write_text("mine")
    with pytest.raises(UsageError, match="is no socket"):
        control.Control("three", lambda _: {})
    assert path.read_text() == "mine"
    path.unlink()
