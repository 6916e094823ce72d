"""The log: a line is a line whatever strangers send, nothing is told without end, and no reader holds anybody up."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ackward.gateway.allow import AllowList, read_rule
from ackward.gateway.counters import Counters
from ackward.gateway.journal import MOST_COMPLAINTS, Journal, Once, WorkerHooks, connection_line, stuck_line
from ackward.gateway.protocol import LegFailed
from ackward.gateway.protocol_messages import Open, Reason
from ackward.gateway.service import Log
from ackward.gateway.settings import ConnectionRecord, End, LegFailure, Retirement, StuckRecord
from ackward.gateway.unacknowledged import Unacknowledged

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


def test_an_end_has_one_spelling():
    assert connection_line(replace(RECORD, end=End.LEG_LOST)).endswith("end=leg-lost")
    counted = [name for name in Counters(1).as_dict() if name.startswith("ended_")]
    assert counted == [f"ended_{end.value.replace('-', '_')}" for end in End]
    assert not any(" " in end for end in End)


@pytest.fixture
def journal():
    made = Journal()
    yield made
    made.close()


def failure(peer, words, address=("198.51.100.1", 1)):
    return LegFailure(peer, address, LegFailed(words, Reason.BAD_PROOF))


@pytest.mark.parametrize(
    ("peer", "error", "line"),
    [
        (
            "",
            LegFailed("unknown", Reason.UNKNOWN_KEY),
            "leg with=a-stranger at=[::1]:9 failed=unknown-key: unknown",
        ),
        (
            "blr",
            OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)),
            "leg with=blr at=[::1]:9 failed=network: Connection refused",
        ),
        (
            "blr",
            OSError("the peer closed the leg"),
            "leg with=blr at=[::1]:9 failed=network: the peer closed the leg",
        ),
        ("blr", Retirement("it drains"), "peer blr takes no new connections at=[::1]:9: it drains"),
        ("blr", None, "peer blr connected again at=[::1]:9"),
    ],
)
def test_what_became_of_a_leg_is_told_with_its_reason(journal, peer, error, line):
    WorkerHooks(journal, {}).leg_failed(LegFailure(peer, ("::1", 9), error))
    assert list(journal.read()) == [line]


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


def test_a_peer_that_is_lost_once_more_is_told_of_again(journal):
    hooks = WorkerHooks(journal, {})
    for error in (OSError("gone"), OSError("gone"), None, OSError("gone"), None):
        hooks.leg_failed(LegFailure("blr", ("192.0.2.1", 1), error))
    lost, again = (
        "leg with=blr at=192.0.2.1:1 failed=network: gone",
        "peer blr connected again at=192.0.2.1:1",
    )
    assert list(journal.read()) == [lost, f"{lost} (1 times more)", again, lost, again]


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
