"""What quickack would change, from recorded facts: no kernel, no root."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackward.errors import UsageError
from ackward.kernel import route_message
from ackward.kernel.netlink import attribute, u32
from ackward.kernel.route_message import Route, parse, rebuilt
from ackward.kernel.rules import Rule
from ackward.loop.fixing import quickack_scope
from ackward.model.changes import (
    OUR_PROTOCOL,
    FollowerStarted,
    RouteAdded,
    RouteMetric,
    RuleAdded,
    TableMirrored,
)
from ackward.model.plan import NamespaceIdentity, Plan, Refusal
from ackward.model.scopes import PortScope, RouteScope, Scope
from ackward.remedies.detour.plan import TABLES
from ackward.remedies.quickack.plan import Facts, plan
from ackward.remedies.route_metrics.plan import network

MAIN, LOCAL = 254, 255
# include/uapi/linux/rtnetlink.h
DST, OIF, GATEWAY, PRIORITY, METRICS, CACHEINFO, TABLE, EXPIRES = 1, 4, 5, 6, 8, 12, 15, 23
UNICAST, BLACKHOLE, THROW = 1, 6, 9
QUICKACK = 15
V4_RULES = (Rule(4, 0, LOCAL), Rule(4, 32766, MAIN), Rule(4, 32767, 253))
V6_RULES = (Rule(6, 0, LOCAL), Rule(6, 32766, MAIN))


def body(
    destination: str,
    *,
    via: str | None = None,
    dev: int = 2,
    table: int = MAIN,
    metric: int = 0,
    quickack: int = 0,
    kind: int = UNICAST,
    protocol: int = 4,
    extra: bytes = b"",
) -> bytes:
    net = ip_network(destination)
    family = socket.AF_INET if net.version == 4 else socket.AF_INET6
    parts = [attribute(TABLE, u32(table)), attribute(OIF, u32(dev))]
    if net.prefixlen:
        parts.append(attribute(DST, net.network_address.packed))
    if via:
        parts.append(attribute(GATEWAY, socket.inet_pton(family, via)))
    if metric:
        parts.append(attribute(PRIORITY, u32(metric)))
    if quickack:
        parts.append(attribute(METRICS, attribute(QUICKACK, u32(quickack))))
    scope = 0 if via else 253
    header = struct.pack(
        "=8BI", family, net.prefixlen, 0, 0, table if table < 256 else 252, protocol, scope, kind, 0
    )
    return header + b"".join(parts) + extra


def route(destination: str, *, learned: bool = False, **fields: object) -> Route:
    made = parse(body(destination, **fields))  # type: ignore[arg-type]
    return Route(**{**made.__dict__, "learned": learned})


DEFAULT4 = route("0.0.0.0/0", via="10.0.0.254")
DEFAULT6 = route("::/0", via="fd00::ffff", metric=1024)
NET4 = route("10.0.0.0/24")
NET6 = route("fd00::/64", metric=256)


def facts(*routes: Route, rules: tuple[Rule, ...] = V4_RULES + V6_RULES) -> Facts:
    namespace = NamespaceIdentity(name="here", path="/proc/self/ns/net", inode=1, cookie=1)
    return Facts(namespace, routes, rules, {2: "eth0", 3: "eth1"})


def planned(found: Facts, scope: Scope) -> Plan:
    made = plan(found, scope)
    assert isinstance(made, Plan), made
    return made


def refused(found: Facts, scope: Scope) -> Refusal:
    made = plan(found, scope)
    assert isinstance(made, Refusal), made
    return made


def quickened(made: Plan) -> list[tuple[str, int, int]]:
    assert all(isinstance(change, RouteMetric) for change in made.changes)
    return [
        (change.route.destination, change.route.table, change.route.metric)
        for change in made.changes
        if isinstance(change, RouteMetric)
    ]


class TestRoutes:
    def test_all_default_routes_of_both_families_and_all_tables(self) -> None:
        policy = route("0.0.0.0/0", via="10.0.0.1", table=1000)
        backup = route("0.0.0.0/0", via="10.0.1.1", metric=50)
        made = planned(facts(NET4, DEFAULT4, policy, backup, NET6, DEFAULT6), RouteScope())
        assert quickened(made) == [
            ("0.0.0.0/0", MAIN, 0),
            ("0.0.0.0/0", 1000, 0),
            ("0.0.0.0/0", MAIN, 50),
            ("::/0", MAIN, 1024),
        ]
        assert (
            made.changes[0].words
            == "set quickack 1 on the IPv4 route 0.0.0.0/0 via 10.0.0.254 dev eth0 (table main)"
        )

    def test_our_own_mirrors_blackholes_and_the_local_table_are_left_alone(self) -> None:
        ours = route("0.0.0.0/0", via="10.0.0.254", table=TABLES.start, protocol=OUR_PROTOCOL)
        hole = route("0.0.0.0/0", kind=BLACKHOLE, metric=999)
        local = route("0.0.0.0/0", table=LOCAL)
        assert quickened(planned(facts(DEFAULT4, ours, hole, local), RouteScope())) == [
            ("0.0.0.0/0", MAIN, 0)
        ]

    def test_two_routes_of_one_metric_are_refused(self) -> None:
        twin = route("0.0.0.0/0", via="10.0.1.254", dev=3)
        reason = refused(facts(DEFAULT4, twin, DEFAULT6), RouteScope()).reason
        assert "same metric 0 (via 10.0.0.254 dev eth0; via 10.0.1.254 dev eth1)" in reason

    def test_the_same_metric_in_another_table_or_of_a_learned_route_is_no_twin(self) -> None:
        elsewhere = route("0.0.0.0/0", via="10.0.1.254", table=7)
        learned = route("::/0", via="fe80::1", metric=1024, protocol=9, learned=True)
        made = planned(facts(DEFAULT4, elsewhere, DEFAULT6, learned), RouteScope())
        assert quickened(made) == [("0.0.0.0/0", MAIN, 0), ("0.0.0.0/0", 7, 0), ("::/0", MAIN, 1024)]
        assert any("left out" in note and "router advertisement" in note for note in made.notes)

    def test_only_a_learned_route_is_refused(self) -> None:
        learned = route("::/0", via="fe80::1", metric=1024, protocol=9, learned=True)
        assert "router advertisement" in refused(facts(learned), RouteScope()).reason

    def test_without_a_default_route_the_connected_networks_are_named(self) -> None:
        link_local = route("fe80::/64", metric=256)
        made = refused(facts(NET4, NET6, link_local), RouteScope())
        assert "no default route" in made.reason
        assert "--to" in made.next_step
        assert "10.0.0.0/24, fd00::/64" in made.next_step
        assert "fe80" not in made.next_step

    def test_a_namespace_without_routes_is_refused_in_words(self) -> None:
        assert "address" in refused(facts(), RouteScope()).next_step

    def test_quickack_already_is_no_change_and_no_error(self) -> None:
        made = planned(facts(route("0.0.0.0/0", via="10.0.0.254", quickack=1)), RouteScope())
        assert made.changes == ()
        assert made.notes == ("all default routes have quickack already",)


class TestTo:
    def test_routes_inside_or_equal(self) -> None:
        inside = route("10.0.0.0/25", via="10.0.0.9")
        other = route("10.1.0.0/24", via="10.0.0.9")
        made = planned(facts(NET4, inside, other, DEFAULT4), RouteScope(to="10.0.0.0/24"))
        assert quickened(made) == [("10.0.0.0/24", MAIN, 0), ("10.0.0.0/25", MAIN, 0)]
        assert made.notes == ()

    def test_addresses_outside_the_routes_inside_get_a_copy_of_the_route_that_covers_them(self) -> None:
        made = planned(facts(NET4, DEFAULT4), RouteScope(to="10.0.0.0/8"))
        assert [change.route.destination for change in made.changes] == ["10.0.0.0/24", "10.0.0.0/8"]
        assert isinstance(made.changes[1], RouteAdded)
        assert made.changes[1].copy_of == "0.0.0.0/0"
        fast = route("10.0.0.0/24", quickack=1)
        made = planned(facts(fast, DEFAULT4), RouteScope(to="10.0.0.0/8"))
        assert [change.route.destination for change in made.changes] == ["10.0.0.0/8"]

    def test_addresses_that_no_route_covers_are_named(self) -> None:
        made = planned(facts(NET4), RouteScope(to="10.0.0.0/8"))
        assert quickened(made) == [("10.0.0.0/24", MAIN, 0)]
        assert any("not covered" in note for note in made.notes)

    def test_every_route_of_every_table_but_those_of_single_links(self) -> None:
        policy = route("0.0.0.0/0", via="10.0.0.1", table=7)
        link_local = route("fe80::/64", metric=256)
        hole = route("8.0.0.0/8", kind=BLACKHOLE)
        made = planned(facts(NET4, DEFAULT4, policy, NET6, link_local, hole), RouteScope(every=True))
        assert quickened(made) == [
            ("10.0.0.0/24", MAIN, 0),
            ("0.0.0.0/0", MAIN, 0),
            ("0.0.0.0/0", 7, 0),
            ("fd00::/64", MAIN, NET6.key.metric),
        ]
        assert quickened(planned(facts(NET4), RouteScope(every=True))) == [("10.0.0.0/24", MAIN, 0)]
        assert "no default route" in refused(facts(link_local), RouteScope(every=True)).reason

    def test_all_is_a_word_for_every_route(self) -> None:
        assert quickack_scope(to="all") == RouteScope(every=True)
        assert quickack_scope(to="10.0.0.0/8") == RouteScope(to="10.0.0.0/8")

    def test_a_larger_route_is_copied_in_each_table_that_has_one(self) -> None:
        policy = route("8.0.0.0/8", via="10.0.0.1", table=1000)
        backup = route("0.0.0.0/0", via="10.0.1.1", metric=50)
        made = planned(facts(NET4, backup, DEFAULT4, policy, DEFAULT6), RouteScope(to="8.8.8.0/24"))
        copies = [change for change in made.changes if isinstance(change, RouteAdded)]
        assert [(copy.route.table, copy.copy_of, copy.route.via) for copy in copies] == [
            (MAIN, "0.0.0.0/0", "via 10.0.0.254 dev eth0"),
            (1000, "8.0.0.0/8", "via 10.0.0.1 dev eth0"),
        ]
        sent = parse(bytes.fromhex(copies[0].message))
        assert (str(sent.key.destination), sent.protocol, sent.quickack) == ("8.8.8.0/24", OUR_PROTOCOL, 1)
        assert sent.next_hops == DEFAULT4.next_hops

    def test_a_copy_does_not_open_what_a_blackhole_closes(self) -> None:
        hole = route("8.0.0.0/8", kind=BLACKHOLE)
        assert "no unicast route" in refused(facts(DEFAULT4, hole), RouteScope(to="8.8.8.0/24")).reason

    def test_a_cover_with_quickack_needs_no_copy(self) -> None:
        fast = route("0.0.0.0/0", via="10.0.0.254", quickack=1)
        made = planned(facts(fast), RouteScope(to="8.8.8.0/24"))
        assert made.changes == ()
        assert made.notes == ("the route that covers 8.8.8.0/24 has quickack already",)

    def test_nothing_leads_there(self) -> None:
        assert "leads to 8.8.8.0/24" in refused(facts(NET4, DEFAULT6), RouteScope(to="8.8.8.0/24")).reason

    def test_link_local_routes_do_not_stand_in_the_way_of_a_wide_network(self) -> None:
        one, two = route("fe80::/64", metric=256), route("fe80::/64", metric=256, dev=3)
        made = planned(facts(NET6, one, two, DEFAULT6), RouteScope(to="::/0"))
        assert quickened(made) == [("fd00::/64", MAIN, 256), ("::/0", MAIN, 1024)]
        assert "same metric" in refused(facts(one, two), RouteScope(to="fe80::/64")).reason

    @pytest.mark.parametrize(
        ("text", "step"), [("10.0.0.1/8", "10.0.0.0/8"), ("ten", "10.0.0.0/8"), ("", "fd00::/8")]
    )
    def test_what_is_no_network_is_a_usage_error(self, text: str, step: str) -> None:
        with pytest.raises(UsageError, match="is not a network") as caught:
            network(text)
        assert step in caught.value.next_step


class TestPort:
    def test_tables_then_rules_before_main_then_the_follower(self) -> None:
        made = planned(facts(NET4, DEFAULT4, NET6, DEFAULT6), PortScope(port=7000))
        table = TABLES.start
        assert made.changes == (
            TableMirrored(family=4, table=table),
            TableMirrored(family=6, table=table),
            *(
                RuleAdded(family=family, preference=32765, selector=side, port=7000, table=table)
                for family in (4, 6)
                for side in ("sport", "dport")
            ),
            FollowerStarted(table=table),
        )

    def test_the_table_is_one_that_nobody_uses(self) -> None:
        used = route("10.9.0.0/16", table=TABLES.start)
        named = Rule(6, 100, TABLES.start + 1, selective=True, selectors="from fd00::/64")
        made = planned(facts(used, DEFAULT4, rules=(*V4_RULES, named, *V6_RULES)), PortScope(port=7000))
        assert made.changes[0] == TableMirrored(family=4, table=TABLES.start + 2)

    def test_all_tables_taken(self) -> None:
        rules = tuple(Rule(4, 100, table, selective=True) for table in TABLES)
        assert "in use" in refused(facts(DEFAULT4, rules=(*V4_RULES, *rules)), PortScope(port=1)).reason

    def test_a_policy_rule_of_the_user_keeps_precedence_and_is_named(self) -> None:
        rule = Rule(4, 100, 1000, selective=True, selectors="from 10.0.0.0/24")
        made = planned(facts(DEFAULT4, rules=(V4_RULES[0], rule, *V4_RULES[1:])), PortScope(port=7000))
        assert any("100: from 10.0.0.0/24 lookup 1000" in note for note in made.notes)

    @pytest.mark.parametrize(
        "rule",
        [
            Rule(4, 100, 1000),
            Rule(4, 100, 1000, selective=True, inverted=True, selectors="fwmark 0xca6c"),
            Rule(4, 100, MAIN, suppressing=True),
            Rule(4, 100, 0, action=6),
        ],
        ids=["catch-all", "all but", "main without default", "blackhole"],
    )
    def test_a_rule_that_takes_everything_is_refused(self, rule: Rule) -> None:
        policy = route("0.0.0.0/0", via="10.0.0.1", table=1000)
        made = refused(
            facts(DEFAULT4, policy, rules=(V4_RULES[0], rule, *V4_RULES[1:])), PortScope(port=7000)
        )
        assert rule.words in made.reason

    def test_a_catch_all_whose_table_answers_for_some_destinations_only_is_named(self) -> None:
        some = route("100.64.0.0/10", table=52)
        rules = (V4_RULES[0], Rule(4, 5270, 52), *V4_RULES[1:])
        made = planned(facts(DEFAULT4, some, rules=rules), PortScope(port=7000))
        assert any("5270: from all lookup 52" in note for note in made.notes)

    def test_without_ipv6_only_ipv4(self) -> None:
        made = planned(facts(DEFAULT4, rules=V4_RULES), PortScope(port=7000))
        assert {getattr(change, "family", 4) for change in made.changes} == {4}
        assert "IPv6 is not there and left out" in made.notes

    def test_without_rules_or_without_main(self) -> None:
        assert "CONFIG_IP_MULTIPLE_TABLES" in refused(facts(DEFAULT4, rules=()), PortScope(port=1)).reason
        assert "lookup main" in refused(facts(DEFAULT4, rules=V4_RULES[:1]), PortScope(port=1)).reason

    def test_ours_are_recognised_whole_and_in_part(self) -> None:
        ours = [
            Rule(4, 32765, TABLES.start, protocol=OUR_PROTOCOL, selective=True, sport=sport, dport=dport)
            for sport, dport in ((7000, None), (None, 7000))
        ]
        whole = facts(DEFAULT4, rules=(V4_RULES[0], *ours, *V4_RULES[1:]))
        assert planned(whole, PortScope(port=7000)).changes == ()
        assert planned(whole, PortScope(port=7001)).changes != ()
        part = facts(DEFAULT4, rules=(V4_RULES[0], ours[0], *V4_RULES[1:]))
        assert "undo --all" in refused(part, PortScope(port=7000)).next_step


attribute_numbers = st.integers(31, 60)  # beyond those that are known: they must survive all the same
unknown = st.lists(
    st.tuples(attribute_numbers, st.binary(max_size=20)), max_size=4, unique_by=lambda pair: pair[0]
)
networks = st.one_of(
    st.builds(
        lambda n, p: str(ip_network((n, p), strict=False)), st.integers(0, 2**32 - 1), st.integers(0, 32)
    ),
    st.builds(
        lambda n, p: str(ip_network((n, p), strict=False)),
        st.integers(2**32, 2**128 - 1),
        st.integers(0, 128),
    ),
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    destination = draw(networks)
    gateway = "fd00::9" if ":" in destination else "10.0.0.9"
    return body(
        destination,
        via=draw(st.sampled_from([None, gateway])),
        dev=draw(st.integers(1, 9)),
        table=draw(st.sampled_from([MAIN, MAIN, MAIN, 7, 100_000])),
        metric=draw(st.sampled_from([0, 100])),
        quickack=draw(st.integers(0, 2)),
        kind=draw(st.sampled_from([UNICAST, UNICAST, BLACKHOLE, THROW])),
        extra=b"".join(attribute(*pair) for pair in draw(unknown)),
    )


class TestMessages:
    @given(bodies())
    def test_setting_and_clearing_quickack_changes_nothing_else(self, raw: bytes) -> None:
        found = parse(raw)
        fast = parse(rebuilt(found, metrics={"quickack": 1}))
        assert fast.quickack == 1
        assert fast.essence("quickack") == found.essence("quickack")
        assert fast.key == found.key
        back = rebuilt(fast, metrics={"quickack": found.quickack})
        assert route_message.canonical(back) == route_message.canonical(raw)

    @given(bodies(), st.integers(0, 200))
    def test_a_message_cut_anywhere_is_read_or_refused_cleanly(self, raw: bytes, at: int) -> None:
        try:
            parse(raw[:at])
        except (struct.error, ValueError):
            assert at < len(raw)

    @pytest.mark.parametrize(("ticks", "seconds"), [(60_000, 600), (59_950, 600), (1, 1), (-5, 1)])
    def test_an_expiring_route_expires_all_the_same(self, ticks: int, seconds: int) -> None:
        info = struct.pack("=IIi5I", 0, 0, ticks, 0, 0, 0, 0, 0)
        found = route("fd01::/64", extra=attribute(CACHEINFO, info))
        assert found.expires
        assert attribute(EXPIRES, u32(seconds)) in rebuilt(found, metrics={"quickack": 1})

    def test_a_route_for_ever_gets_no_expiry(self) -> None:
        found = route("fd01::/64", extra=attribute(CACHEINFO, bytes(32)))
        assert not found.expires
        assert rebuilt(found) == body("fd01::/64")

    def test_state_flags_of_next_hops_are_masked(self) -> None:
        hops = b"".join(
            struct.pack("=HBBi", 8 + 8, flags, 1, number) + attribute(GATEWAY, bytes([10, 0, 0, number]))
            for number, flags in ((1, 0x1 | 0x10), (2, 0x4 | 0x10))
        )
        found = route("10.9.0.0/16", extra=attribute(9, hops))
        assert [hop.gateway for hop in found.next_hops] == ["10.0.0.1", "10.0.0.2"]
        again = parse(rebuilt(found))
        assert again.next_hops == found.next_hops
        assert struct.pack("=HBBi", 16, 0x4, 1, 2) in rebuilt(found)
        assert struct.pack("=HBBi", 16, 0, 1, 1) in rebuilt(found)

    def test_what_belongs_to_a_nexthop_object_is_not_repeated(self) -> None:
        found = route("10.9.0.0/16", via="10.0.0.1", extra=attribute(30, u32(77)))
        again = parse(rebuilt(found))
        assert (again.nexthop_id, again.next_hops) == (77, ())
