"""Keeps a table of ours equal to main, with quickack 1 on every unicast route.

``python -m ackward.remedies.detour.mirror NAMESPACE-PATH INODE TABLE RECEIPT-FILE`` follows main until what
it lives for is gone (:mod:`ackward.remedies.detour.lifeline`). It sleeps in poll(2) between changes and
imports the standard library only. It does not enter the namespace: it holds netlink sockets that were opened
there.

Laws: a destination that cannot be copied is sent on to main (a ``throw`` route), so the table never decides
where packets go, only how they are acknowledged; nothing but routes of our protocol number is ever touched.
"""

from __future__ import annotations

import errno
import select
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ackward.errors import AckwardError
from ackward.kernel import background, route_message, routes, rule_message, rules
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Message, Netlink
from ackward.kernel.route_message import TABLE_MAIN, THROW, UNICAST, Route
from ackward.remedies.detour.lifeline import Lifeline

#: As in :data:`ackward.model.changes.OUR_PROTOCOL`, which a process of a few megabytes cannot afford to import
#: (pydantic).
PROTOCOL = 0xAC

# RTNLGRP_*, include/uapi/linux/rtnetlink.h. Links and addresses: the kernel drops IPv4 routes with their
# interface without an RTM_DELROUTE (fib_sync_down_dev()), and with a preferred source address only those in
# main.
GROUPS = (
    1,
    5,
    7,
    8,
    9,
    11,
    19,
)  # LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE

# A routing daemon that installs thousands of routes must cost one copy per interval, not thousands. Seconds.
_SETTLE = 0.05


@dataclass(frozen=True)
class Copy:
    """What our table should hold for a route of main: ``body`` is its RTM_NEWROUTE."""

    of: Route
    body: bytes

    @property
    def identity(self) -> object:
        """Equal to :func:`_identity` of the route that the kernel makes of it."""
        return _identity(route_message.parse(self.body))


@dataclass(frozen=True)
class Difference:
    """What keeps a table of ours from being main's copy."""

    missing: tuple[Copy, ...]
    surplus: tuple[Route, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus)


def _identity(route: Route) -> object:
    # The kernel adds attributes of its own to a throw route (an interface, a preference).
    if route.type == THROW:
        return route.key.destination, route.key.source, route.key.tos
    return route_message.canonical(route_message.rebuilt(route, expiry=False))


def copies(found: list[Route], table: int) -> list[Copy]:
    """Pure: what our table should hold, given all routes of a family."""
    # A dead route (its interface is down) is refused by the kernel, and used by nobody.
    main = [route for route in found if route.key.table == TABLE_MAIN and not route.dead]
    routed = Counter(route.key for route in main if _has_gateway(route))
    wanted = []
    for route in main:
        if route.key.family == 6 and routed[route.key] > 1:
            # Copies of two IPv6 routes with gateways would become one multipath route
            # (rt6_qualify_for_ecmp()).
            wanted.append(Copy(route, route_message.throw(route, protocol=PROTOCOL, table=table)))
        else:
            # A copy does not expire: main's is refreshed in place, without an event.
            body = route_message.rebuilt(
                route,
                metrics={"quickack": 1} if route.type == UNICAST else None,
                expiry=False,
                table=table,
                protocol=PROTOCOL,
            )
            wanted.append(Copy(route, body))
    # A gateway must be reachable when its route is added: directly connected destinations first.
    return sorted(wanted, key=lambda copy: (_has_gateway(copy.of), -copy.of.key.destination.prefixlen))


def _has_gateway(route: Route) -> bool:
    return route.nexthop_id is not None or any(hop.gateway for hop in route.next_hops)


def difference(found: list[Route], table: int) -> Difference:
    """Pure: what is missing in and surplus to our table, given all routes of a family."""
    wanted = {copy.identity: copy for copy in copies(found, table)}
    present = {
        _identity(route): route for route in found if route.key.table == table and route.protocol == PROTOCOL
    }
    return Difference(
        missing=tuple(copy for identity, copy in wanted.items() if identity not in present),
        surplus=tuple(route for identity, route in present.items() if identity not in wanted),
    )


def synchronise(netlink: Netlink, family: int, table: int) -> list[Route]:
    """Make our table main's copy; gives the routes that could not be copied and are sent on to main."""
    refused: list[Route] = []
    found = difference(routes.dump(netlink, family), table)
    for route in found.surplus:
        routes.delete(netlink, route, doing=f"to delete the mirrored route to {route.key.destination}")
    for copy in found.missing:
        doing = f"to mirror the route to {copy.of.key.destination}"
        if routes.add(netlink, copy.body, doing=doing, accept=_REFUSALS):
            refused.append(copy.of)
            body = route_message.throw(copy.of, protocol=PROTOCOL, table=table)
            routes.add(netlink, body, doing=doing, accept=(errno.EEXIST,))
    return refused


# The kernel's words for a route that it does not take at this moment, or never in another table.
_REFUSALS = (
    errno.EINVAL,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENODEV,
    errno.EOPNOTSUPP,
)


def clear(netlink: Netlink, family: int, table: int) -> int:
    """Delete our routes from our table; gives their number."""
    ours = [
        route
        for route in routes.dump(netlink, family)
        if route.key.table == table and route.protocol == PROTOCOL
    ]
    return sum(
        routes.delete(netlink, route, doing=f"to delete the mirrored route to {route.key.destination}")
        for route in ours
    )


def published(netlink: Netlink, table: int) -> bool:
    """Whether any rule of ours still leads to the table."""
    return any(
        rule.protocol == PROTOCOL and rule.table == table
        for family in (4, 6)
        for rule in rules.dump(netlink, family)
    )


def _concerns(message: Message, table: int) -> bool:
    """Whether an event can change the copy or end its use. Our own changes do not."""
    if message.type in (routes.RTM_NEWROUTE, routes.RTM_DELROUTE):
        return route_message.parse(message.body).key.table == TABLE_MAIN
    if message.type in (rule_message.RTM_NEWRULE, rule_message.RTM_DELRULE):
        return message.type == rule_message.RTM_DELRULE and rules.parse(message.body).table == table
    return True


def follow(namespace: Namespace, table: int, receipt: Path) -> None:
    """Follow main until the receipt, our rules or the namespace is gone; detached as soon as it does."""
    with (
        Netlink(namespace, GROUPS) as events,
        Netlink(namespace) as netlink,
        Lifeline(namespace, receipt) as lifeline,
    ):
        _synchronise_all(netlink, table)
        background.detach()
        poll = select.poll()
        for source in (events, lifeline):
            poll.register(source, select.POLLIN)
        while lifeline.holds():
            poll.poll()
            if _anything_new(events, table):
                time.sleep(_SETTLE)
                _anything_new(events, table)
                if not published(netlink, table):
                    return
                _synchronise_all(netlink, table)


def _anything_new(events: Netlink, table: int) -> bool:
    try:
        return any(_concerns(message, table) for message in events.pending())
    except OSError as error:
        if error.errno != errno.ENOBUFS:
            raise
        return True  # events were lost: only a look at the tables tells


def _synchronise_all(netlink: Netlink, table: int) -> None:
    for family in (4, 6):
        synchronise(netlink, family, table)


def main(arguments: list[str]) -> int:
    """The process; gives its exit code."""
    path, inode, table, receipt = arguments
    try:
        follow(Namespace(Path(path).name, Path(path), int(inode)), int(table), Path(receipt))
    except AckwardError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
