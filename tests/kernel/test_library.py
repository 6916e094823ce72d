"""`import ackward`: the same loop as functions with typed results."""

from __future__ import annotations

import threading

import pytest
from tests.kernel.quickack_hosts import ip, router

import ackward
from ackward.errors import AckwardError, Refused, UnknownName, UsageError
from ackward.lab import run as lab
from ackward.lab.peer import Shape
from ackward.model.causes import Cause
from ackward.model.plan import State
from ackward.model.verdict import Result
from ackward.remedies import NAMES as REMEDIES


@pytest.fixture
def busy(hosts):
    """A host whose service stalls its clients."""
    ended = threading.Event()
    shape = Shape(rounds=20)

    def ask():
        while not ended.is_set():
            lab.peer(hosts.client, "load", hosts.server_address(4), shape).communicate(timeout=60)

    with lab.server(hosts, shape):
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield hosts
        finally:
            ended.set()
            thread.join()


def test_the_loop_in_functions(busy):
    seen = ackward.watch(2, port=7000)
    assert seen.report.findings[0].cause is Cause.STANDOFF
    assert len(seen.elapsed) == seen.report.exchanges
    plan = ackward.plan_quickack(netns=busy.server.name, port=7000)
    proof = ackward.prove(plan, 1.5)
    assert proof.receipt
    try:
        assert proof.verdict.result is Result.IMPROVED
        [status] = ackward.status()
        assert status.state is State.IN_FORCE
        with pytest.raises(Refused, match=f"in force already.*`ackward undo {proof.receipt.id}`"):
            ackward.prove(plan, 1)
    finally:
        [outcome] = ackward.undo(proof.receipt.id)
    assert outcome.complete
    assert ackward.status() == []


def test_what_somebody_else_set_is_not_ours_to_take_back():
    with router() as host:
        ip(host, "route", "change", "default", "via", "198.19.0.2", "quickack", "1")
        ip(host, "-6", "route", "change", "default", "via", "fdac:0::2", "quickack", "1")
        with pytest.raises(Refused, match=r"would change nothing: .* have quickack already") as refused:
            ackward.prove(ackward.plan_quickack(netns=host.name), 1)
    assert "not ours to undo" in str(refused.value)


def test_every_place_leads_to_its_function():
    assert {name for name in ackward.__all__ if callable(getattr(ackward, name))} == set(ackward.__all__)
    assert {f"plan_{name}" for name in REMEDIES} - set(ackward.__all__) == {"plan_pin", "plan_gateway"}


def test_errors_are_of_one_tree():
    with pytest.raises(UnknownName):
        ackward.watch(1, netns="no-such-namespace")
    with pytest.raises(UsageError):
        ackward.watch(0)
    with pytest.raises(AckwardError):
        ackward.plan_quickack(port=7000, to="10.0.0.0/8")
    with pytest.raises(AttributeError):
        ackward.nonsense  # noqa: B018


def test_examine_gives_a_report():
    assert {probe.name for probe in ackward.examine().probes} >= {"cgroup_skb", "sock_send_length"}
