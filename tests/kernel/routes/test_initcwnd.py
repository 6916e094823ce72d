"""Initial windows on routes of the real kernel: what they save, whom they reach, and what undo leaves."""

from __future__ import annotations

import itertools
import socket
import statistics
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from tests.kernel.lab_hosts import ackward_json
from tests.kernel.quickack_hosts import ip, routing
from tests.kernel.routes.test_quickack_routes import ATTRIBUTES, NEXTHOPS
from tests.kernel.test_lab_wan import rounds

from ackward import remedies
from ackward.cli import main as cli
from ackward.errors import Refused
from ackward.kernel import sysctl
from ackward.kernel.namespaces import Namespace, call_inside
from ackward.lab.peer import Shape
from ackward.lab.topology import CLIENT, DEVICE, set_metrics, two_hosts
from ackward.lab.wan import Wan
from ackward.loop import fixing
from ackward.model.plan import Ending, Plan, Receipt, Refusal, State
from ackward.model.scopes import RouteScope, Scope, WindowScope
from ackward.remedies.initcwnd.plan import AFTER_IDLE
from ackward.remedies.receipts import Receipts

INITCWND = remedies.load("initcwnd")
QUICKACK = remedies.load("quickack")
#: A load whose answers are limited by the window alone.
FRESH = Shape(nagle=False, pings=1, answer=100_000, reconnect=True, rounds=2, congestion="cubic")
#: struct tcp_info, include/uapi/linux/tcp.h: bytes, then u32s.
CWND, RECEIVE_SSTHRESH = 18, 14

ORDERS = [("initcwnd", "quickack"), ("quickack", "initcwnd")]


def applied(host: Namespace, store: Receipts, scope: Scope) -> Receipt:
    remedy = INITCWND if isinstance(scope, WindowScope) else QUICKACK
    plan = remedy.plan(host, scope)
    assert isinstance(plan, Plan), plan
    receipt = remedy.apply(plan, store)
    assert receipt is not None
    return receipt


def undo(receipt: Receipt, store: Receipts) -> None:
    assert remedies.load(receipt.remedy).undo(receipt, store).complete


@contextmanager
def in_force(host: Namespace, store: Receipts, scope: Scope | None) -> Iterator[None]:
    """The remedy, or none at all, for a while."""
    receipt = applied(host, store, scope) if scope else None
    yield
    if receipt:
        undo(receipt, store)


def tcp_info(connection: socket.socket, field: int) -> int:
    """One of the u32s of TCP_INFO."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8 + 4 * (field + 1))
    return int(struct.unpack_from("=I", info, 8 + 4 * field)[0])


@contextmanager
def connected(
    client: Namespace, server: Namespace, address: str, source: str = ""
) -> Iterator[list[socket.socket]]:
    """A new connection: its socket at the client and at the server."""
    with ExitStack() as stack:
        listener = stack.enter_context(call_inside(server, socket.create_server, (address, 0)))
        to = listener.getsockname()
        opened = call_inside(client, socket.create_connection, to, 5, (source, 0) if source else None)
        stack.enter_context(opened)
        accepted = stack.enter_context(listener.accept()[0])
        yield [opened, accepted]


@pytest.mark.parametrize(("family", "segments", "less"), [(4, 30, 1), (6, 64, 2)])
def test_an_answer_of_100_kb_takes_fewer_round_trips(
    store: Receipts, family: int, segments: int, less: int
) -> None:
    """70 segments are 10 + 20 + 40, or 30 + 40. IPv6 has 71 smaller ones: 10 + 20 + 40 + 1, or 45 (64 KiB) + 26."""
    scope = WindowScope(to=CLIENT[family], segments=segments)
    before, after = [], []
    with two_hosts(Wan.of(40)) as hosts:
        shape = replace(FRESH, family=family)
        for _ in range(2):  # in turns: the machine may be busier at one time than at another
            before += rounds(hosts, shape)
            with in_force(hosts.server, store, scope):
                after += rounds(hosts, shape)
    saved = statistics.median(before) - statistics.median(after)
    assert 80 * less - 20 < saved < 80 * less + 20, (before, after)


def test_a_connection_that_rests_begins_with_the_initial_window_or_keeps_its_own(store: Receipts) -> None:
    """60 kB, 42 segments, after each rest: 10 + 20 + 12; 30 + 12 (tcp_cwnd_restart()); all at once."""
    shape = replace(FRESH, answer=60_000, reconnect=False, rest=500, rounds=4)
    scopes = [None, WindowScope(segments=30), WindowScope(segments=30, after_idle=True)]
    with two_hosts(Wan.of(20)) as hosts:
        assert sysctl.read(hosts.server, AFTER_IDLE) == "1"
        medians = []
        for scope in scopes:
            with in_force(hosts.server, store, scope):
                medians.append(statistics.median(rounds(hosts, shape)[1:]))
    none, larger, kept = medians
    assert 30 < none - larger < 50, medians
    assert 30 < larger - kept < 50, medians


def test_only_the_network_that_was_named_is_reached(store: Receipts) -> None:
    """The control is a connection of the same client, host and port that comes from another address."""
    with two_hosts() as hosts:
        ip(hosts.client, "addr", "add", "198.18.0.9/24", "dev", DEVICE)
        receipt = applied(hosts.server, store, WindowScope(to="198.18.0.1/32", segments=30))
        for source, cwnd in (("198.18.0.1", 30), ("198.18.0.9", 10)):
            with connected(hosts.client, hosts.server, "198.18.0.2", source) as (_, server):
                assert tcp_info(server, CWND) == cwnd
        undo(receipt, store)
        with connected(hosts.client, hosts.server, "198.18.0.2", "198.18.0.1") as (_, server):
            assert tcp_info(server, CWND) == 10


def test_initrwnd_only_lowers_the_first_receive_window_so_it_is_only_raised_where_it_is(
    store: Receipts,
) -> None:
    """tcp_select_initial_window() takes the smaller of it and what the buffer allows (64 KiB)."""

    def first_window() -> int:
        with connected(hosts.client, hosts.server, "198.18.0.2") as (client, _):
            return tcp_info(client, RECEIVE_SSTHRESH)

    with two_hosts() as hosts:
        usual = first_window()
        set_metrics(hosts.client, hosts, ("initrwnd", "200"))
        assert first_window() == usual
        set_metrics(hosts.client, hosts, ("initrwnd", "10"))
        assert first_window() < usual / 3
        receipt = applied(hosts.client, store, WindowScope(to="198.18.0.2", segments=30))
        assert [change.words.split(" on ")[0] for change in receipt.changes] == [
            "set initcwnd 30",
            "set initrwnd 30",
        ]
        assert usual / 2 < first_window() < usual
        undo(receipt, store)
        assert first_window() < usual / 3


class TestWithQuickack:
    """Two remedies on one route: each restores its own metric, in any order."""

    @pytest.mark.parametrize("name", ATTRIBUTES)
    def test_every_attribute_survives_both(self, host: Namespace, store: Receipts, name: str) -> None:
        n4, n6 = "198.51.100.0/24", "2001:db8::/64"
        lines = ATTRIBUTES[name]
        for line in NEXTHOPS if "nhid" in lines[0] else ():
            ip(host, "nexthop", "add", *line.split())
        for line in lines:
            ip(host, *line.format(n4=f"{n4} proto 99", n6=f"{n6} proto 99").split())
        before = routing(host)
        for to, order in itertools.product({n6 if line.startswith("-6") else n4 for line in lines}, (1, -1)):
            made = [
                applied(host, store, WindowScope(to=to, segments=40)),
                applied(host, store, RouteScope(to=to)),
            ]
            set_ = [line for found in routing(host).values() for line in found if "quickack 1" in line]
            assert set_
            assert all("initcwnd 40" in line for line in set_)
            for receipt in made:
                assert remedies.load(receipt.remedy).status(receipt, store).state is State.IN_FORCE
            for receipt in made[::order]:
                undo(receipt, store)
            assert routing(host) == before

    @pytest.mark.parametrize("made", ORDERS)
    @pytest.mark.parametrize("undone", ORDERS)
    @pytest.mark.parametrize("to", ["203.0.113.0/24", "2001:db8:7::/48"])
    def test_a_copy_is_shared_and_goes_with_the_last(
        self, host: Namespace, store: Receipts, to: str, made: tuple[str, str], undone: tuple[str, str]
    ) -> None:
        scopes: dict[str, Scope] = {
            "initcwnd": WindowScope(to=to, segments=30),
            "quickack": RouteScope(to=to),
        }
        before = routing(host)
        found = {name: applied(host, store, scopes[name]) for name in made}
        family = "-6" if ":" in to else "-4"
        words = {"initcwnd": "initcwnd 30", "quickack": "quickack 1"}
        shown = ip(host, family, "route", "show", to)
        assert len(shown.splitlines()) == 1
        assert all(word in shown for word in words.values())
        first, last = undone
        undo(found[first], store)
        shown = ip(host, family, "route", "show", to)
        assert words[first] not in shown
        assert words[last] in shown
        assert remedies.load(last).status(found[last], store).state is State.IN_FORCE
        undo(found[last], store)
        assert routing(host) == before

    def test_undo_of_a_share_that_was_never_taken_leaves_the_copy(
        self, host: Namespace, store: Receipts
    ) -> None:
        """Killed after the receipt was written: the copy is the other remedy's alone."""
        quick = applied(host, store, RouteScope(to="203.0.113.0/24"))
        found = routing(host)
        plan = INITCWND.plan(host, WindowScope(to="203.0.113.0/24", segments=30))
        assert isinstance(plan, Plan)
        with store.lock():
            killed = store.create(plan)
        assert INITCWND.undo(killed, store).details[0].ending is Ending.NOTHING
        assert routing(host) == found
        undo(quick, store)

    def test_a_copy_inside_another_is_refused(self, host: Namespace, store: Receipts) -> None:
        """It would take the larger one's metrics along, and keep them when that is undone."""
        receipt = applied(host, store, RouteScope(to="203.0.113.0/24"))
        refusal = INITCWND.plan(host, WindowScope(to="203.0.113.7/32", segments=30))
        assert isinstance(refusal, Refusal)
        assert "--to 203.0.113.0/24" in refusal.next_step
        undo(receipt, store)


class TestChangedSince:
    """What someone else did after apply is theirs."""

    def test_another_window_is_left_and_reported(self, host: Namespace, store: Receipts) -> None:
        receipt = applied(host, store, WindowScope(to="0.0.0.0/0", segments=30))
        ip(host, "route", "change", "default", "via", "198.19.0.2", "initcwnd", "50")
        assert "initcwnd 50, which we did not set" in str(INITCWND.status(receipt, store).details)
        outcome = INITCWND.undo(receipt, store)
        assert not outcome.complete
        assert "initcwnd 50" in ip(host, "route", "show", "default")

    def test_a_setting_set_back_is_nothing_to_undo(self, host: Namespace, store: Receipts) -> None:
        receipt = applied(host, store, WindowScope(segments=30, after_idle=True))
        sysctl.write(host, AFTER_IDLE, "1")
        assert INITCWND.status(receipt, store).state is State.PARTLY
        outcome = INITCWND.undo(receipt, store)
        assert outcome.complete
        assert outcome.details[0].ending is Ending.NOTHING
        assert sysctl.read(host, AFTER_IDLE) == "1"

    def test_a_setting_that_was_so_before_stays(self, host: Namespace, store: Receipts) -> None:
        sysctl.write(host, AFTER_IDLE, "0")
        receipt = applied(host, store, WindowScope(segments=30, after_idle=True))
        undo(receipt, store)
        assert sysctl.read(host, AFTER_IDLE) == "0"


@pytest.mark.usefixtures("own_store")
class TestRequest:
    """What is asked for by name, and asked for badly."""

    @pytest.mark.parametrize(("segments", "reason"), [("0", "no data could leave"), ("1001", "64 KiB")])
    def test_a_window_that_is_none(
        self, segments: str, reason: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.run(["fix", "initcwnd", "--segments", segments]) == 2
        assert reason in capsys.readouterr().err

    def test_another_window_on_the_same_route_names_the_receipt_to_undo_first(
        self, host: Namespace, store: Receipts
    ) -> None:
        first = applied(host, store, WindowScope(segments=30))
        with pytest.raises(Refused, match=first.id) as caught:
            fixing.plan_initcwnd(netns=host.name, segments=40)
        assert f"ackward undo {first.id}" in caught.value.next_step
        undo(first, store)
        assert len(fixing.plan_initcwnd(netns=host.name, segments=40).changes) == 2


@pytest.mark.parametrize("scenario", ["slow-start", "idle-restart"])
def test_the_lab_finds_fixes_and_proves(scenario: str) -> None:
    report = ackward_json("lab", "run", scenario, "--set", "rounds=3")
    assert report["verdict"] == "improved"
    assert "ackward fix initcwnd --to 198.18.0.1/32 --segments 30" in report["fix"]
    assert ("--after-idle" in report["fix"]) == (scenario == "idle-restart")
