"""Quickack on routes of the real kernel: everything else on them survives, both ways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.kernel.quickack_hosts import SLOW_MS, Conversation, advertise, ip, routing, wire
from tests.polling import eventually

from ackward import remedies
from ackward.errors import Refused, Unavailable
from ackward.kernel import routes
from ackward.kernel.namespaces import Namespace, call_inside, temporary
from ackward.kernel.netlink import Netlink
from ackward.model.plan import Ending, Plan, Receipt, Refusal, State, UndoOutcome
from ackward.model.scopes import RouteScope
from ackward.remedies.receipts import Receipts

QUICKACK = remedies.load("quickack")


def planned(host: Namespace, to: str | None = None) -> Plan:
    made = QUICKACK.plan(host, RouteScope(to=to))
    assert isinstance(made, Plan), made
    return made


def applied(host: Namespace, store: Receipts, to: str | None = None) -> Receipt:
    receipt = QUICKACK.apply(planned(host, to), store)
    assert receipt is not None
    return receipt


def undone(receipt: Receipt, store: Receipts) -> UndoOutcome:
    outcome = QUICKACK.undo(receipt, store)
    assert store.load().receipts == ()
    return outcome


def without_quickack(found: dict[str, list[str]]) -> dict[str, list[str]]:
    # A nexthop line of a multipath route follows the metrics, so one blank may be left over.
    return {
        name: sorted(re.sub(r" +", " ", line.replace("quickack 1", "")).strip() for line in lines)
        if name.startswith("routes")
        else lines
        for name, lines in found.items()
    }


ATTRIBUTES = {
    "src": ["route add {n4} via 198.19.0.2 src 198.19.1.1"],
    "mtu": ["route add {n4} via 198.19.0.2 mtu 1400", "-6 route add {n6} via fdac:0::2 mtu 1400"],
    "locked mtu": [
        "route add {n4} via 198.19.0.2 mtu lock 1400",
        "-6 route add {n6} via fdac:0::2 mtu lock 1400",
    ],
    "many metrics": [
        "route add {n4} via 198.19.0.2 advmss 1200 initcwnd 20 initrwnd 30 window 70000 rto_min 50ms hoplimit 9",
        "-6 route add {n6} via fdac:0::2 advmss 1200 initcwnd 20 initrwnd 30 rto_min 50ms hoplimit 9",
    ],
    "congctl": [
        "route add {n4} via 198.19.0.2 congctl reno",
        "-6 route add {n6} via fdac:0::2 congctl lock cubic",
    ],
    "ecn": ["route add {n4} via 198.19.0.2 features ecn"],
    "metric": ["route add {n4} via 198.19.0.2 metric 70", "-6 route add {n6} via fdac:0::2 metric 70"],
    "other metrics beside": [
        "route add {n4} via 198.19.0.2 metric 70",
        "route add {n4} via 198.19.1.2 metric 80",
        "-6 route add {n6} via fdac:0::2 metric 70",
        "-6 route add {n6} via fdac:1::2 metric 80",
    ],
    "tos": ["route add {n4} tos 0x10 via 198.19.0.2", "route add {n4} via 198.19.1.2"],
    "realm": ["route add {n4} via 198.19.0.2 realm 7"],
    "preference": ["-6 route add {n6} via fdac:0::2 pref high"],
    "source-specific": [
        "-6 route add {n6} from fdac:9::/64 via fdac:0::2",
        "-6 route add {n6} via fdac:1::2",
    ],
    "expires": ["-6 route add {n6} via fdac:0::2 expires 600"],
    "scope": ["route add {n4} dev w0 scope link"],
    "onlink": ["route add {n4} via 203.0.113.1 dev w0 onlink", "-6 route add {n6} via fdff::1 dev w0 onlink"],
    "via inet6": ["route add {n4} via inet6 fdac:0::2 dev w0"],
    "encapsulated": [
        "route add {n4} encap ip id 7 dst 198.19.1.2 dev w0",
        "-6 route add {n6} encap ip6 id 7 dst fdac:1::2 dev w0",
    ],
    "nexthop object": ["route add {n4} nhid 71", "-6 route add {n6} nhid 72 mtu 1400"],
    "nexthop group": ["route add {n4} nhid 74", "-6 route add {n6} nhid 76"],
    "table": ["route add {n4} via 198.19.0.2 table 1000", "-6 route add {n6} via fdac:0::2 table 1000"],
    "multipath": [
        "route add {n4} nexthop via 198.19.0.2 weight 3 nexthop via 198.19.1.2 weight 5",
        "-6 route add {n6} nexthop via fdac:0::2 weight 3 nexthop via fdac:1::2 weight 5",
    ],
    "multipath of all kinds": [
        (
            "route add {n4} metric 5 mtu lock 1400 "
            "nexthop via 203.0.113.1 dev w1 onlink weight 9 nexthop via inet6 fdac:0::2 dev w0"
        )
    ],
    "IPv6 siblings": ["-6 route add {n6} via fdac:0::2", "-6 route append {n6} via fdac:1::2"],
}


NEXTHOPS = [
    "id 71 via 198.19.0.2 dev w0",
    "id 72 via fdac:0::2 dev w0",
    "id 73 via 198.19.1.2 dev w1",
    "id 74 group 71,3/73,5",
    "id 75 via fdac:1::2 dev w1",
    "id 76 group 72/75",
]


@pytest.mark.parametrize("which", ["default", "named"])
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_attribute_survives_apply_and_undo(
    host: Namespace, store: Receipts, name: str, which: str
) -> None:
    n4, n6 = ("default", "default") if which == "default" else ("198.51.100.0/24", "2001:db8::/64")
    lines = ATTRIBUTES[name]
    for family in ("", "-6 "):
        if which == "default":
            ip(host, *f"{family}route del default".split())
    for line in NEXTHOPS if "nhid" in lines[0] else ():
        ip(host, "nexthop", "add", *line.split())
    for line in lines:
        ip(host, *line.format(n4=f"{n4} proto 99", n6=f"{n6} proto 99").split())
    before = routing(host)
    wanted = {n6 if line.startswith("-6") else n4 for line in lines}
    receipts = [applied(host, store, None if to == "default" else to) for to in sorted(wanted)]
    fast = routing(host)
    changes = [change for receipt in receipts for change in receipt.changes]
    # Appending makes a sibling of the route before it: one multipath route.
    assert len(changes) == len([line for line in lines if "append" not in line])
    assert sum("quickack 1" in line for found in fast.values() for line in found) == len(changes)
    assert without_quickack(fast) == before
    for receipt in receipts:
        assert QUICKACK.status(receipt, store).state is State.IN_FORCE
        assert QUICKACK.undo(receipt, store).complete
    assert routing(host) == before


def test_a_route_in_use_loses_nothing_of_its_expiry(host: Namespace, store: Receipts) -> None:
    ip(host, "-6", "route", "replace", "default", "via", "fdac:0::2", "expires", "600")
    receipt = applied(host, store, "::/0")
    left = re.search(r"expires (\d+)sec", ip(host, "-6", "route", "show", "default"))
    assert left is not None
    assert 595 <= int(left[1]) <= 600
    undone(receipt, store)
    left = re.search(r"expires (\d+)sec", ip(host, "-6", "route", "show", "default"))
    assert left is not None
    assert 595 <= int(left[1]) <= 600


def test_two_ipv4_defaults_of_one_metric_are_refused_and_stay(host: Namespace) -> None:
    ip(host, "route", "append", "default", "via", "198.19.1.2")
    before = routing(host)
    refusal = QUICKACK.plan(host, RouteScope())
    assert isinstance(refusal, Refusal)
    assert "198.19.0.2" in refusal.reason
    assert "198.19.1.2" in refusal.reason
    assert routing(host) == before


def test_a_twin_that_comes_between_plan_and_apply_is_refused_and_stays(
    host: Namespace, store: Receipts
) -> None:
    plan = planned(host)
    ip(host, "route", "append", "default", "via", "198.19.1.2")
    before = routing(host)
    with pytest.raises(Refused, match="changed between plan and apply"):
        QUICKACK.apply(plan, store)
    assert routing(host) == before
    assert store.load().receipts == ()


def test_what_the_kernel_does_beyond_the_request_is_seen_and_put_back(host: Namespace) -> None:
    # Asked past the check for twins: the kernel replaces the first, and its gateway is lost.
    ip(host, "route", "append", "default", "via", "198.19.1.2")
    before = ip(host, "route", "show", "default")
    with Netlink(host) as netlink:
        found = routes.dump(netlink, 4)
        second = next(
            route for route in found if route.next_hops and route.next_hops[0].gateway == "198.19.1.2"
        )
        with pytest.raises(Unavailable, match="put back"):
            routes.replace_verified(netlink, second, found, {"quickack": 1}, doing="to test")
    assert ip(host, "route", "show", "default") == before


def test_without_a_default_route_the_connected_networks_are_named(host: Namespace) -> None:
    ip(host, "route", "del", "default")
    ip(host, "-6", "route", "del", "default")
    refusal = QUICKACK.plan(host, RouteScope())
    assert isinstance(refusal, Refusal)
    assert "198.19.0.0/24, 198.19.1.0/24, fdac:1::/64, fdac::/64" in refusal.next_step


def test_quickack_already_is_nothing_to_do(host: Namespace, store: Receipts) -> None:
    ip(host, "route", "change", "default", "via", "198.19.0.2", "quickack", "1")
    ip(host, "-6", "route", "change", "default", "via", "fdac:0::2", "quickack", "1")
    before = routing(host)
    plan = planned(host)
    assert plan.changes == ()
    assert QUICKACK.apply(plan, store) is None
    assert routing(host) == before
    assert store.load().receipts == ()


class TestChangedSince:
    """What someone else did after apply is theirs; all else is undone."""

    def test_another_value_is_left_and_reported(self, host: Namespace, store: Receipts) -> None:
        receipt = applied(host, store)
        with Netlink(host) as netlink:
            key = next(route.key for route in routes.dump(netlink, 4) if route.quickack)
            routes.set_metrics(netlink, key, {"quickack": 2}, doing="to test")
        status = QUICKACK.status(receipt, store)
        assert status.state is State.CHANGED
        assert "quickack 2, which we did not set" in status.details[0].words
        outcome = undone(receipt, store)
        assert {part.ending for part in outcome.details} == {Ending.LEFT, Ending.UNDONE}
        assert not outcome.complete
        assert "quickack 2" in ip(host, "route", "show", "default")
        assert "quickack" not in ip(host, "-6", "route", "show", "default")

    def test_a_route_that_was_removed_is_reported(self, host: Namespace, store: Receipts) -> None:
        receipt = applied(host, store)
        ip(host, "route", "del", "default")
        assert "someone removed it" in QUICKACK.status(receipt, store).details[0].words
        outcome = undone(receipt, store)
        assert any("someone removed it" in point for point in outcome.open_points)
        assert ip(host, "route", "show", "default") == ""

    def test_a_twin_is_left(self, host: Namespace, store: Receipts) -> None:
        receipt = applied(host, store)
        ip(host, "route", "append", "default", "via", "198.19.1.2")
        before = ip(host, "route", "show", "default")
        assert not undone(receipt, store).complete
        assert ip(host, "route", "show", "default") == before

    def test_other_attributes_changed_since_are_kept(self, host: Namespace, store: Receipts) -> None:
        receipt = applied(host, store)
        ip(host, "route", "change", "default", "via", "198.19.1.2", "mtu", "1300", "quickack", "1")
        assert QUICKACK.status(receipt, store).state is State.IN_FORCE
        assert undone(receipt, store).complete
        assert ip(host, "route", "show", "default").strip() == "default via 198.19.1.2 dev w1 mtu 1300"

    def test_a_route_installed_anew_without_quickack_needs_no_undo(
        self, host: Namespace, store: Receipts
    ) -> None:
        receipt = applied(host, store)
        ip(host, "route", "replace", "default", "via", "198.19.1.2")
        before = ip(host, "route", "show", "default")
        assert QUICKACK.status(receipt, store).state is State.PARTLY
        assert undone(receipt, store).complete
        assert ip(host, "route", "show", "default") == before


class TestCopies:
    """``--to`` where only a larger route leads."""

    @pytest.mark.parametrize("to", ["203.0.113.0/24", "203.0.113.7", "2001:db8:7::/48"])
    def test_a_copy_leads_where_the_larger_route_does(
        self, host: Namespace, store: Receipts, to: str
    ) -> None:
        before = routing(host)
        receipt = applied(host, store, to)
        assert [change.kind for change in receipt.changes] == ["route-added"]
        family = "-6" if ":" in to else "-4"
        taken = ip(host, family, "route", "get", to.partition("/")[0])
        assert ("via fdac::2 dev w0" if family == "-6" else "via 198.19.0.2 dev w0") in taken
        assert "quickack 1" in taken
        assert QUICKACK.status(receipt, store).state is State.IN_FORCE
        assert undone(receipt, store).complete
        assert routing(host) == before

    def test_a_copy_that_leads_elsewhere_by_now_is_told(self, host: Namespace, store: Receipts) -> None:
        receipt = applied(host, store, "203.0.113.0/24")
        ip(host, "route", "replace", "default", "via", "198.19.1.2")
        status = QUICKACK.status(receipt, store)
        assert status.state is State.CHANGED
        assert "no longer leads where 0.0.0.0/0 does" in status.details[0].words
        assert undone(receipt, store).complete
        assert ip(host, "route", "show").count("proto 172") == 0

    def test_a_route_of_someone_else_in_its_place_is_not_touched(
        self, host: Namespace, store: Receipts
    ) -> None:
        receipt = applied(host, store, "203.0.113.0/24")
        ip(host, "route", "replace", "203.0.113.0/24", "via", "198.19.1.2")
        assert undone(receipt, store).complete
        assert "via 198.19.1.2" in ip(host, "route", "show", "203.0.113.0/24")


@pytest.fixture
def advertised() -> Iterator[tuple[Namespace, Namespace]]:
    """A host whose kernel learned an IPv6 default route from its router, and that router."""
    with ExitStack() as stack:
        here, there = (stack.enter_context(temporary(label)) for label in ("host", "router"))
        wire(here, there, "w0", 0)
        for setting, value in (("accept_ra", "2"), ("forwarding", "0")):
            call_inside(here, Path(f"/proc/sys/net/ipv6/conf/w0/{setting}").write_text, value)

        def learned() -> bool:
            advertise(there, "w0", 600)
            return "proto ra" in ip(here, "-6", "route", "show", "default")

        assert eventually(learned)
        yield here, there


class TestLearned:
    """IPv6 default routes that the kernel learned from a router and withdraws on its word."""

    def test_alone_it_is_refused(self, advertised: tuple[Namespace, Namespace]) -> None:
        refusal = QUICKACK.plan(advertised[0], RouteScope())
        assert isinstance(refusal, Refusal)
        assert "router advertisement" in refusal.reason

    def test_beside_a_static_route_of_the_same_metric_it_stays_the_kernels(
        self, advertised: tuple[Namespace, Namespace], store: Receipts
    ) -> None:
        here, there = advertised
        ip(here, "-6", "route", "append", "default", "via", "fdac:0::2", "metric", "1024")
        before = routing(here)
        receipt = applied(here, store)
        assert without_quickack(routing(here)) == before
        assert undone(receipt, store).complete
        assert routing(here) == before

        def withdrawn() -> bool:
            advertise(there, "w0", 0)
            return "proto ra" not in ip(here, "-6", "route", "show", "default")

        assert eventually(withdrawn)

    def test_with_the_prototypes_way_it_would_not_be_withdrawn(
        self, advertised: tuple[Namespace, Namespace]
    ) -> None:
        """Why it is refused: this is what the kernel does with a learned route that was replaced."""
        here, there = advertised
        with Netlink(here) as netlink:
            found = routes.dump(netlink, 6)
            learned = next(route for route in found if route.learned)
            routes.replace_verified(netlink, learned, found, {"quickack": 1}, doing="to test")
        advertise(there, "w0", 900)
        assert eventually(lambda: "expires 89" in ip(here, "-6", "route", "show", "default"))
        advertise(there, "w0", 0)
        ip(there, "-6", "neigh", "flush", "dev", "w0")
        advertise(there, "w0", 700)  # its effect tells that the one before was dealt with
        assert eventually(lambda: "expires 69" in ip(here, "-6", "route", "show", "default"))


@pytest.mark.parametrize("family", [4, 6])
def test_an_open_connection_profits_at_once_and_stalls_again_after_undo(store: Receipts, family: int) -> None:
    with temporary("client") as client, temporary("server") as server:
        wire(server, client, "w0", 0)
        ip(server, "route", "add", "default", "via", "198.19.0.2")
        ip(server, "-6", "route", "add", "default", "via", "fdac:0::2")
        # The client speaks from an address that the server reaches by its default route.
        ip(client, "addr", "add", "192.0.2.1/32", "dev", "lo")
        ip(client, "addr", "add", "2001:db8:9::1/128", "dev", "lo", "nodad")
        address, source = ("198.19.0.1", "192.0.2.1") if family == 4 else ("fdac:0::1", "2001:db8:9::1")
        ip(
            client,
            f"-{family}",
            "route",
            "replace",
            f"{address}/{32 if family == 4 else 128}",
            "dev",
            "w0",
            "src",
            source,
        )
        with Conversation(client, server, address, 7300) as conversation:
            assert conversation.median() > SLOW_MS
            receipt = applied(server, store)
            assert conversation.median() < SLOW_MS / 4
            assert undone(receipt, store).complete
            assert conversation.median() > SLOW_MS
