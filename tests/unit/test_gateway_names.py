"""Names that fail, change and hang: the last answer stays in use, and each turn is told once."""

from __future__ import annotations

import queue
import threading

import pytest

from ackward.gateway.config import Endpoint
from ackward.gateway.names import Names


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
