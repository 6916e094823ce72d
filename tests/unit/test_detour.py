"""What a mirror of main should hold, from recorded routes: no kernel, no root."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_quickack_plan import (
    DEFAULT4,
    DEFAULT6,
    EXPIRES,
    NET4,
    NET6,
    THROW,
    UNICAST,
    bodies,
    route,
)

from ackward.kernel.netlink import attribute, u32
from ackward.kernel.route_message import parse
from ackward.model.changes import OUR_PROTOCOL
from ackward.remedies.detour import mirror
from ackward.remedies.detour.plan import TABLES


class TestMirror:
    @given(st.lists(bodies(), max_size=12))
    def test_the_difference_applied_leaves_none(self, raw: list[bytes]) -> None:
        table = TABLES.start
        for version in (4, 6):
            found = [each for each in map(parse, raw) if each.key.family == version]
            difference = mirror.difference(found, table)
            after = found + [parse(copy.body) for copy in difference.missing]
            assert not mirror.difference(after, table)

    def test_surplus_is_what_main_no_longer_has_and_never_what_is_not_ours(self) -> None:
        table = TABLES.start
        stale = route("10.8.0.0/16", via="10.0.0.9", table=table, protocol=OUR_PROTOCOL)
        foreign = route("10.7.0.0/16", via="10.0.0.9", table=table)
        difference = mirror.difference([NET4, stale, foreign], table)
        assert difference.surplus == (stale,)
        assert [copy.of for copy in difference.missing] == [NET4]

    def test_connected_routes_come_before_those_that_need_them(self) -> None:
        copies = mirror.copies([DEFAULT4, NET4], TABLES.start)
        assert [copy.of for copy in copies] == [NET4, DEFAULT4]

    def test_copies_are_quick_ours_and_do_not_expire(self) -> None:
        expiring = route("fd01::/64", via="fd00::9", extra=attribute(EXPIRES, u32(30)))
        (copy,) = mirror.copies([expiring], TABLES.start)
        sent = parse(copy.body)
        assert (sent.quickack, sent.protocol, sent.key.table, sent.expires) == (
            1,
            OUR_PROTOCOL,
            TABLES.start,
            False,
        )

    def test_two_ipv6_gateways_of_one_metric_are_sent_on_to_main(self) -> None:
        twin = route("::/0", via="fe80::1", metric=1024, protocol=9, learned=True)
        copies = mirror.copies([DEFAULT6, twin, NET6], TABLES.start)
        assert sorted(parse(copy.body).type for copy in copies) == [UNICAST, THROW, THROW]

    def test_the_protocol_number_is_the_models(self) -> None:
        assert mirror.PROTOCOL == OUR_PROTOCOL
