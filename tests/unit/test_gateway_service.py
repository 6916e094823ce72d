"""What surrounds the data plane: names that fail and change, a log that nobody can forge or stop, the control socket."""

from __future__ import annotations

import json
import os
import queue
import select
import socket
import threading
import tomllib
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ackward.errors import UnknownName, UsageError
from ackward.gateway import control
from ackward.gateway.allow import AllowList, read_rule
from ackward.gateway.config import Endpoint, check
from ackward.gateway.journal import MOST_COMPLAINTS, Journal, Once, WorkerHooks, connection_line, stuck_line
from ackward.gateway.names import Names
from ackward.gateway.notices import notices
from ackward.gateway.protocol import LegFailed
from ackward.gateway.protocol_messages import Open, Reason
from ackward.gateway.service import Log
from ackward.gateway.settings import ConnectionRecord, End, LegFailure, StuckRecord
from ackward.gateway.unacknowledged import Unacknowledged

# Names


class Resolver:
    """Answers what the test says, and tells when it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), threading.Semaphore(0)

    def __call__(self, endpoint):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.asked.release()
        if isinstance(answer, OSError):
            raise answer
        return [(host, endpoint.port) for host in answer.split()]


APP = Endpoint(host="app.example", port=443)


def watched(*answers, enough):
    """Let names be looked up so many times: (what they stand for, what was said, what changed)."""
    said, changed, resolver = [], [], Resolver(*answers)
    names = Names([APP], said.append, lambda *change: changed.append(change), resolve=resolver, every=0.001)
    names.start()
    for _ in range(enough):
        assert resolver.asked.acquire(timeout=5)
    names.stop()
    names._thread.join(5)
    return names.resolved[APP], said, changed


def test_an_address_needs_no_dns():
    here = Endpoint(host="192.0.2.1", port=1)
    names = Names([here], pytest.fail, pytest.fail, resolve=pytest.fail)
    names.start()
    assert names.resolved[here] == ("192.0.2.1", 1)


def test_while_dns_fails_the_last_answer_stays_and_it_is_told_once():
    failure = OSError(-3, "Temporary failure in name resolution")
    now, said, changed = watched("192.0.2.1", failure, failure, failure, "192.0.2.1", enough=6)
    assert now == ("192.0.2.1", 443)
    assert [line.split(";")[-1] for line in said] == [
        " 192.0.2.1 stays in use",
        "the name app.example resolves again: 192.0.2.1",
    ]
    assert not changed


def test_a_change_is_told_and_used():
    now, said, changed = watched("192.0.2.1", "192.0.2.2", enough=3)
    assert now == ("192.0.2.2", 443)
    assert changed == [(APP, ("192.0.2.2", 443))]
    assert "open connections stay" in said[0]


def test_answers_in_another_order_are_no_change():
    now, said, changed = watched("192.0.2.1 192.0.2.2", "192.0.2.2 192.0.2.1", "192.0.2.3", enough=4)
    assert now == ("192.0.2.3", 443)
    assert changed == [(APP, ("192.0.2.3", 443))]
    assert len(said) == 1


def test_a_name_that_never_resolved_stands_for_nothing_until_it_does():
    now, said, changed = watched(OSError("no"), "192.0.2.1", enough=3)
    assert now == ("192.0.2.1", 443)
    assert "refused until it resolves" in said[0]
    assert changed == [(APP, ("192.0.2.1", 443))]


def test_the_start_does_not_wait_for_a_resolver_that_hangs():
    release = threading.Event()
    changed = queue.Queue()

    def late(_):
        release.wait(10)
        return [("192.0.2.1", 443)]

    names = Names([APP], pytest.fail, lambda *change: changed.put(change), resolve=late, every=3600)
    names.start(patience=0.01)
    assert names.resolved[APP] is None
    release.set()
    assert changed.get(timeout=5) == (APP, ("192.0.2.1", 443)), "its first answer is used all the same"
    assert names.resolved[APP] == ("192.0.2.1", 443)
    names.stop()


def test_names_are_looked_up_at_once_when_that_is_asked():
    resolver = Resolver("192.0.2.1")
    names = Names([APP], lambda _: None, lambda *_: None, resolve=resolver, every=3600)
    names.start()
    assert resolver.asked.acquire(timeout=5)
    names.again()
    assert resolver.asked.acquire(timeout=5)
    names.stop()
    names._thread.join(5)
    assert not names._thread.is_alive()


# The log


RECORD = ConnectionRecord(
    "web",
    ("192.0.2.9", 53122),
    ("fd00::7", 443),
    "blr",
    True,
    512,
    43440,
    0.612001,
    0.24621,
    End.CLIENT_RESET,
)


def test_a_connection_is_one_line_of_keys_and_values():
    line = connection_line(RECORD)
    kind, *pairs = line.split(" ")
    assert kind == "connection"
    assert dict(pair.split("=") for pair in pairs) == {
        "listener": "web", "client": "192.0.2.9:53122", "destination": "[fd00::7]:443", "peer": "blr", "early": "yes",
        "to_server": "512", "to_client": "43440", "connected": "0.246210", "lasted": "0.612001", "end": "reset-by-client",
    }  # fmt: skip


@pytest.fixture
def journal():
    made = Journal()
    yield made
    made.close()


def failure(peer, words, address=("198.51.100.1", 1)):
    return LegFailure(peer, address, LegFailed(words, Reason.BAD_PROOF))


def test_nobody_can_forge_a_line(journal):
    hooks = WorkerHooks(journal, {})
    hooks.leg_failed(failure("x\n2026 connection end=done\x1b[2J", "words\r\nmore\u202e"))
    [line] = journal.read()
    assert line.isprintable()


def test_what_strangers_do_wrong_is_told_once(journal):
    hooks = WorkerHooks(journal, {})
    for port in range(500):
        hooks.leg_failed(failure("", f"forged {port}", ("198.51.100.1", port)))
        assert not hooks.permits("blr", Open((ip_address("10.0.0.1"), 22), (ip_address("::"), 0)))
    assert len(list(journal.read())) == 2


def test_complaints_are_counted_and_never_fill_the_memory():
    once = Once()
    said = [line for n in range(3 * MOST_COMPLAINTS) for line in once.lines((str(n),), f"line {n}")]
    assert len(said) == MOST_COMPLAINTS + 1
    [counted] = once.summary()
    assert f"({2 * MOST_COMPLAINTS - 1} times more)" in counted
    assert list(once.lines(("0",), "line 0")) == ["line 0"]
    assert not list(once.summary())


def test_what_was_counted_is_told_when_nobody_complains_any_more(journal):
    hooks = WorkerHooks(journal, {})
    for _ in range(7):
        hooks.leg_failed(failure("", "forged"))
    [first] = journal.read()
    hooks.recount()
    assert list(journal.read()) == [f"{first} (6 times more)"]
    hooks.recount()
    assert not list(journal.read())


def test_who_is_turned_away_is_told_once_for_each_reason(journal):
    hooks = WorkerHooks(journal, {})
    for port in range(3):
        hooks.turned_away("web", ("192.0.2.9", port), "one reason")
        hooks.turned_away("web", ("192.0.2.9", port), "another")
    told = [f"turned away listener=web client=192.0.2.9:0: {why}" for why in ("one reason", "another")]
    assert list(journal.read()) == told


def test_the_allow_list_is_by_peer(journal):
    hooks = WorkerHooks(journal, {"blr": AllowList((read_rule("10.0.0.0/8:443"),))})
    wanted = Open((ip_address("10.0.0.1"), 443), (ip_address("::"), 0))
    assert hooks.permits("blr", wanted)
    assert not hooks.permits("sfo", wanted)
    assert not hooks.permits("", wanted)


def test_a_worker_never_waits_for_the_log(journal):
    hooks = WorkerHooks(journal, {})
    for _ in range(100_000):
        hooks.ended(RECORD)
        if journal._lost:
            break
    assert journal._lost, "the test must fill the socket"
    kept = len(list(journal.read()))
    hooks.ended(RECORD)
    first, second = journal.read()
    assert first == "log lines lost=1"
    assert second.startswith("connection ")
    assert kept > 10


STUCK = StuckRecord("web", ("192.0.2.9", 1), ("203.0.113.7", 4433), "blr", False, Unacknowledged(1448, 1500, 4, 56, False, True))  # fmt: skip


def test_a_stuck_connection_is_told_once_a_path_with_what_it_can_mean(journal):
    hooks = WorkerHooks(journal, {})
    for number in range(20):
        hooks.stuck(replace(STUCK, client=("192.0.2.9", number)))
    hooks.stuck(replace(STUCK, went_on=True))
    suspicion, cure = journal.read()
    assert suspicion == (
        "stuck peer=blr at=203.0.113.7:4433 client=192.0.2.9:0: segments of 1448 bytes (path MTU taken to be 1500) were "
        "not acknowledged 4 times in a row, and nothing behind them was: an MTU black hole, or the path is gone; "
        "set peer.blr.mss, or net.ipv4.tcp_mtu_probing=1"
    )
    assert "the path has an MTU black hole (or was gone for a while)" in cure


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"what": replace(STUCK.what, others_arrive=True)}, "while others behind them were"),
        ({"fragments": True}, "routers may fragment them from now on"),
        ({"accepted": True}, "set exit.mss"),
        ({"peer": ""}, "net.ipv4.tcp_mtu_probing=1 here"),
    ],
)
def test_what_is_known_of_a_stuck_connection_decides_the_words(change, said):
    assert said in stuck_line(replace(STUCK, **change))


# What a configuration costs


LISTEN = "[[listen]]\naddress = '0.0.0.0:1'\ntarget = '192.0.2.1:1'\n"
EXIT = "[exit]\naddress = '0.0.0.0:2'\nnetworks = ['192.0.2.0/24']\n[peer.a]\nkeys = ['a.key']\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LISTEN + EXIT, []),
        ("workers = 2\n" + LISTEN, []),
        ("workers = 2\n" + EXIT, ["legs cannot be joined"]),
        (
            "workers = 2\n" + LISTEN + "answer = 'faithful'",
            ["listen.0: faithful listeners are served by the first"],
        ),
        (LISTEN + "[limits]\nconnections = 60000", ["a worker 100000 descriptors"]),
    ],
)
def test_what_degrades_is_said(text, said):
    told = list(notices(check(tomllib.loads(text), Path("gateway.toml")), 100_000))
    assert len(told) == len(said)
    assert all(words in line for words, line in zip(said, told, strict=True))


# The control socket


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "DIRECTORY", tmp_path / "gateway")
    ends = []

    def serve(name="one", answer=lambda what: {"what": what}):
        made = control.Control(name, answer)
        ends.append(made)
        return made

    yield serve
    for end in ends:
        end.close()
    assert not list((tmp_path / "gateway").glob("*.sock"))


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


def test_a_file_in_the_sockets_place_is_not_removed(served, tmp_path):
    served()
    path = control.path_of("three")
    path.write_text("mine")
    with pytest.raises(UsageError, match="is no socket"):
        control.Control("three", lambda _: {})
    assert path.read_text() == "mine"
    path.unlink()


def test_a_reader_that_does_not_read_loses_lines_and_holds_nobody_up():
    read, write = os.pipe()
    try:
        log = Log(write)
        for _ in range(2000):
            log.write(*[connection_line(RECORD)] * 3)
        kept = os.read(read, 1 << 20).decode().splitlines()
        assert all(line.endswith("end=reset-by-client") for line in kept), "whole lines only"
        log.write("started again")
        told, again = os.read(read, 1 << 20).decode().splitlines()
        assert told.endswith(f"log lines lost={6000 - len(kept)}")
        assert again.endswith("started again")
    finally:
        os.close(read)
        os.close(write)


def test_a_reader_that_is_gone_ends_nothing():
    read, write = os.pipe()
    os.close(read)
    Log(write).write("one", "two")
    os.close(write)
