"""Quickack for ports on the real kernel: rules, and a table that mirrors main."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from tests.kernel.quickack_hosts import SLOW_MS, Conversation, ip, routing, wire
from tests.kernel.routes.port_remedy import (
    PORT,
    QUICKACK,
    applied,
    follower_of,
    in_force,
    mirrored,
    planned,
    shown,
    table_of,
)
from tests.polling import eventually

from ackward.errors import Refused
from ackward.kernel import routes
from ackward.kernel.namespaces import Namespace, temporary
from ackward.kernel.netlink import Netlink
from ackward.model.plan import Refusal, State
from ackward.model.scopes import PortScope
from ackward.remedies.detour import mirror
from ackward.remedies.receipts import Receipts


@pytest.mark.parametrize("family", [4, 6])
def test_an_open_connection_profits_at_once_and_stalls_again_after_undo(store: Receipts, family: int) -> None:
    with temporary("client") as client, temporary("server") as server:
        wire(server, client, "w0", 0)
        address = "198.19.0.1" if family == 4 else "fdac:0::1"
        with (
            Conversation(client, server, address, PORT) as conversation,
            Conversation(client, server, address, PORT + 1) as other,
        ):
            assert conversation.median() > SLOW_MS
            before = routing(server)
            receipt = applied(server, store)
            assert conversation.median() < SLOW_MS / 4
            assert other.median() > SLOW_MS
            assert QUICKACK.undo(receipt, store).complete
            assert conversation.median() > SLOW_MS
            assert routing(server) == before


def test_an_ipv4_client_of_a_dual_stack_socket_profits(store: Receipts) -> None:
    with temporary("client") as client, temporary("server") as server:
        wire(server, client, "w0", 0)
        with Conversation(client, server, "198.19.0.1", PORT, mapped=True) as conversation:
            assert conversation.median() > SLOW_MS
            receipt = applied(server, store)
            assert conversation.median() < SLOW_MS / 4
            assert QUICKACK.undo(receipt, store).complete


def test_the_client_side_is_a_side_too(store: Receipts) -> None:
    """``dport``: the end that connects delays, the end that listens holds."""
    with temporary("client") as client, temporary("server") as server:
        wire(server, client, "w0", 0)
        receipt = applied(client, store)
        assert "quickack 1" in ip(client, "route", "get", "198.19.0.1", "ipproto", "tcp", "dport", str(PORT))
        assert "quickack 1" in ip(
            client, "-6", "route", "get", "fdac:0::1", "ipproto", "tcp", "dport", str(PORT)
        )
        assert "quickack" not in ip(
            client, "route", "get", "198.19.0.1", "ipproto", "udp", "dport", str(PORT)
        )
        assert QUICKACK.undo(receipt, store).complete


class TestMirror:
    """The table is main's copy, at first and later."""

    def test_all_kinds_of_routes(self, host: Namespace, store: Receipts) -> None:
        for line in (
            "nexthop add id 71 via 198.19.0.2 dev w0",
            "route add 10.1.0.0/16 nhid 71",
            "route add 10.2.0.0/16 nexthop via 198.19.0.2 weight 3 nexthop via 198.19.1.2",
            "route add 10.3.0.0/16 via inet6 fdac:0::2 dev w0 mtu lock 1300 src 198.19.1.1",
            "route add 10.4.0.0/16 via 203.0.113.1 dev w1 onlink",
            "route add blackhole 10.5.0.0/16",
            "route add unreachable 10.6.0.0/16 metric 7",
            "route add throw 10.7.0.0/16",
            "route append default via 198.19.1.2",
            "route add default via 198.19.1.2 metric 9",
            "-6 route add 2001:db8:1::/48 via fdac:0::2 expires 600 pref high",
            "-6 route add 2001:db8:2::/48 nexthop via fdac:0::2 nexthop via fdac:1::2",
            "-6 route add blackhole 2001:db8:3::/48",
            "-6 route add throw 2001:db8:4::/48",
        ):
            ip(host, *line.split())
        before = routing(host)
        receipt = applied(host, store)
        assert in_force(receipt, store)
        table = table_of(receipt)
        copy = [
            line.replace(" proto 172", "").replace(" quickack 1", "") for line in lines_of(host, table, "-4")
        ]
        main = [line.replace(" proto kernel", "") for line in lines_of(host, 254, "-4")]
        assert sorted(copy) == sorted(main)
        assert all("quickack 1" in line for line in lines_of(host, table, "-4") if line[0] in "d1")
        assert "throw" not in shown(host, table, "-6").replace("throw 2001:db8:4::/48", "")
        assert "expires" not in shown(host, table, "-6")
        assert QUICKACK.undo(receipt, store).complete
        assert routing(host) == before

    def test_changes_of_main_are_followed(self, host: Namespace, store: Receipts) -> None:
        receipt = applied(host, store)
        table = table_of(receipt)
        for line, family, seen in (
            ("route add 10.1.0.0/16 via 198.19.0.2", "-4", "10.1.0.0/16 via 198.19.0.2"),
            ("route replace 10.1.0.0/16 via 198.19.1.2 mtu 1300", "-4", "10.1.0.0/16 via 198.19.1.2"),
            ("-6 route add 2001:db8:1::/48 via fdac:1::2", "-6", "2001:db8:1::/48 via fdac:1::2"),
            ("addr add 198.19.7.1/24 dev w1", "-4", "198.19.7.0/24 dev w1"),
        ):
            ip(host, *line.split())
            assert eventually(lambda family=family, seen=seen: seen in shown(host, table, family)), line  # type: ignore[misc]
        for line, family, gone in (
            ("route del 10.1.0.0/16", "-4", "10.1.0.0/16"),
            ("-6 route del 2001:db8:1::/48", "-6", "2001:db8:1::"),
            ("addr del 198.19.7.1/24 dev w1", "-4", "198.19.7.0/24"),
            ("link set w1 down", "-4", "w1"),
        ):
            ip(host, *line.split())
            assert eventually(lambda family=family, gone=gone: gone not in shown(host, table, family)), line  # type: ignore[misc]
        ip(host, "link", "set", "w1", "up")
        assert eventually(lambda: "w1" in shown(host, table) and mirrored(host, receipt))
        assert in_force(receipt, store)

    def test_a_burst_larger_than_the_sockets_buffer_is_followed_to_its_end(
        self, host: Namespace, store: Receipts
    ) -> None:
        receipt = applied(host, store)
        lines = [f"route add 10.{number // 250}.{number % 250}.0/24 via 198.19.0.2" for number in range(3000)]
        pid = follower_of(receipt).pid
        os.kill(pid, signal.SIGSTOP)  # so that events overflow its buffer (ENOBUFS)
        subprocess.run(["ip", "-n", host.name, "-batch", "-"], input="\n".join(lines), text=True, check=True)
        os.kill(pid, signal.SIGCONT)
        assert eventually(lambda: mirrored(host, receipt), within=30)
        assert shown(host, table_of(receipt)).count("via 198.19.0.2") == 3001
        assert in_force(receipt, store)
        assert QUICKACK.undo(receipt, store).complete
        assert shown(host, table_of(receipt)) == ""

    def test_a_route_that_cannot_be_copied_is_left_to_main(self, host: Namespace, store: Receipts) -> None:
        """Two IPv6 gateways of one metric that are no multipath route: the copy must not decide between them."""
        receipt = applied(host, store)
        table = table_of(receipt)
        with Netlink(host) as netlink:
            found = routes.dump(netlink, 6)
            twin = next(
                route for route in found if route.key.destination.prefixlen == 0 and route.key.table == 254
            )
            difference = mirror.difference([*found, twin], table)
            assert [copy.of for copy in difference.missing] == [twin]
            for route in difference.surplus:
                routes.delete(netlink, route, doing="to test")
            routes.add(netlink, difference.missing[0].body, doing="to test")
        taken = ip(host, "-6", "route", "get", "2001:db8::1", "ipproto", "tcp", "dport", str(PORT))
        assert "via fdac::2 dev w0" in taken
        assert "quickack" not in taken

    def test_two_plans_for_one_table_do_not_share_it(self, host: Namespace, store: Receipts) -> None:
        one, two = planned(host), planned(host, PORT + 1)
        assert one.changes[0] == two.changes[0]
        receipt = QUICKACK.apply(one, store)
        assert receipt is not None
        before = routing(host)
        with pytest.raises(Refused, match="taken between plan and apply"):
            QUICKACK.apply(two, store)
        assert routing(host) == before
        assert store.load().receipts == (receipt,)
        assert in_force(receipt, store)

    def test_the_copy_is_not_copied_again(self, host: Namespace, store: Receipts) -> None:
        one, two = applied(host, store), applied(host, store, PORT + 1)
        assert table_of(one) != table_of(two)
        assert in_force(one, store)
        assert in_force(two, store)
        assert QUICKACK.undo(one, store).complete
        assert in_force(two, store)
        assert QUICKACK.undo(two, store).complete


def lines_of(host: Namespace, table: int, family: str) -> list[str]:
    text = (
        ip(host, family, "route", "show", "table", str(table)).replace(" \n\t", "\n\t").replace("\n\t", " | ")
    )
    return [line.strip() for line in text.splitlines()]


class TestRules:
    """Whose rule comes first."""

    def test_a_users_rule_keeps_precedence_and_is_named(self, host: Namespace, store: Receipts) -> None:
        ip(host, "route", "add", "default", "via", "198.19.1.2", "table", "1000")
        ip(host, "rule", "add", "pref", "100", "to", "10.0.0.0/8", "lookup", "1000")
        ip(host, "rule", "add", "pref", "32765", "to", "11.0.0.0/8", "lookup", "1000")
        plan = planned(host)
        assert sum("rule" in note and "does not come to ours" in note for note in plan.notes) == 2
        receipt = QUICKACK.apply(plan, store)
        assert receipt is not None
        for address, gateway in (
            ("10.0.0.1", "198.19.1.2"),
            ("11.0.0.1", "198.19.1.2"),
            ("12.0.0.1", "198.19.0.2"),
        ):
            taken = ip(host, "route", "get", address, "ipproto", "tcp", "dport", str(PORT))
            assert f"via {gateway}" in taken
            assert ("quickack 1" in taken) == (address == "12.0.0.1")

    @pytest.mark.parametrize(
        "rule", ["pref 100 lookup 1000", "pref 100 not fwmark 9 lookup 1000", "pref 9 prohibit"]
    )
    def test_a_rule_that_takes_everything_is_refused(self, host: Namespace, rule: str) -> None:
        ip(host, "route", "add", "default", "via", "198.19.1.2", "table", "1000")
        ip(host, "rule", "add", *rule.split())
        refusal = QUICKACK.plan(host, PortScope(port=PORT))
        assert isinstance(refusal, Refusal)
        assert "takes the traffic before ours" in refusal.reason

    def test_the_way_wireguard_does_it_is_refused(self, host: Namespace) -> None:
        ip(host, "rule", "add", "pref", "100", "lookup", "main", "suppress_prefixlength", "0")
        refusal = QUICKACK.plan(host, PortScope(port=PORT))
        assert isinstance(refusal, Refusal)
        assert "suppressing" in refusal.reason

    def test_a_rule_that_someone_removed_is_told_and_undo_is_complete(
        self, host: Namespace, store: Receipts
    ) -> None:
        before = routing(host)
        receipt = applied(host, store)
        ip(host, "rule", "del", "ipproto", "tcp", "sport", str(PORT))
        status = QUICKACK.status(receipt, store)
        assert status.state is State.PARTLY
        assert any("sport 7300 is gone" in look.words for look in status.details)
        assert QUICKACK.undo(receipt, store).complete
        assert routing(host) == before
