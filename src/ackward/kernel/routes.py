"""Routes of a namespace: read them, set metrics, add and delete, and lose nothing of what they carry.

With a metric ``ip route replace`` may silently add a second route, and with two routes of one metric it loses
a gateway with exit code 0. So every replacement is read back, and taken back if more changed than was asked
for. Raw bytes rather than pyroute2 (:mod:`ackward.kernel.route_message` says why). Standard library only.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ackward.errors import Refused, Unavailable
from ackward.kernel import route_message
from ackward.kernel.namespaces import call_inside
from ackward.kernel.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink
from ackward.kernel.route_message import PROTOCOL_RA, Key, Route, parse, rebuilt

if TYPE_CHECKING:
    from ackward.model.changes import Metric

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26  # include/uapi/linux/rtnetlink.h
_RTF_ADDRCONF = 0x00040000  # include/uapi/linux/ipv6_route.h


def dump(netlink: Netlink, family: int) -> list[Route]:
    """All routes of one family (4 or 6) in all tables, without cached exceptions."""
    messages = netlink.dump(RTM_GETROUTE, route_message.dump_request(family))
    # A kernel without IPv6 answers with the routes of all families.
    routes = [parse(message.body) for message in messages if message.type == RTM_NEWROUTE]
    routes = [route for route in routes if route.key.family == family and not route.cached]
    if not any(_may_be_learned(route) for route in routes):
        return routes
    learned = call_inside(netlink.namespace, _learned)
    return [
        replace(route, learned=_may_be_learned(route) and _as_listed(route) in learned) for route in routes
    ]


def interfaces(netlink: Netlink) -> dict[int, str]:
    """The names of the namespace's interfaces by their number."""
    return dict(call_inside(netlink.namespace, socket.if_nameindex))


def _may_be_learned(route: Route) -> bool:
    return route.key.family == 6 and (route.protocol == PROTOCOL_RA or route.expires)


def _as_listed(route: Route) -> tuple[str, str, int]:
    gateway = next((hop.gateway for hop in route.next_hops if hop.gateway), "::")
    return str(route.key.destination), gateway, route.key.metric


def _learned() -> frozenset[tuple[str, str, int]]:
    """Routes from router advertisements, by /proc/net/ipv6_route: netlink does not tell RTF_ADDRCONF."""
    found = set()
    try:
        table = Path("/proc/thread-self/net/ipv6_route").read_text(encoding="ascii")
    except FileNotFoundError:
        return frozenset()  # no IPv6
    for line in table.splitlines():
        destination, length, _, _, gateway, metric, _, _, flags, _ = line.split()
        if int(flags, 16) & _RTF_ADDRCONF:
            network = route_message.network(6, bytes.fromhex(destination), int(length, 16))
            found.add((str(network), route_message.address(6, bytes.fromhex(gateway)), int(metric, 16)))
    return frozenset(found)


def add(netlink: Netlink, body: bytes, *, doing: str, accept: Iterable[int] = ()) -> int:
    """Add a route beside those that are there; 0, or the errno if it is one of ``accept``."""
    # IPv4: APPEND keeps the order of routes with one metric. IPv6 has no order; APPEND there would make one
    # multipath route of routes that were separate.
    flags = NLM_F_CREATE | (NLM_F_APPEND if body[0] == socket.AF_INET else 0)
    return netlink.change(RTM_NEWROUTE, flags, body, doing=doing, accept=accept)


def add_new(netlink: Netlink, body: bytes, *, doing: str) -> None:
    """Add a route where none has its key; raises Unavailable otherwise."""
    netlink.change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, doing=doing)


def delete(netlink: Netlink, route: Route, *, doing: str) -> bool:
    """Delete exactly this route; false if it is gone already."""
    gone = (errno.ESRCH, errno.ENOENT, errno.ENODEV)
    return netlink.change(RTM_DELROUTE, 0, rebuilt(route), doing=doing, accept=gone) == 0


def sharing_key(routes: Iterable[Route], key: Key) -> list[Route]:
    """The routes that NLM_F_REPLACE could hit for ``key``. More than one makes a replacement unsafe.

    The kernel keeps routes learned from advertisements apart from those with a gateway
    (rt6_qualify_for_ecmp()), so they do not count.
    """
    return [route for route in routes if route.key == key and not route.learned]


def set_metrics(netlink: Netlink, key: Key, metrics: Mapping[Metric, int], *, doing: str) -> None:
    """Set metrics of the one route that has ``key`` and leave all else as it is, proven by reading back.

    Raises :class:`Refused` when no or more than one route has the key, :class:`Unavailable` when the kernel
    refuses or when anything else changed with it, after putting back what was there.
    """
    before = dump(netlink, key.family)
    matching = sharing_key(before, key)
    if len(matching) != 1:
        raise Refused(
            f"{len(matching)} routes to {key.destination} in table {key.table} have metric {key.metric}",
            consequence="the kernel would change the first and lose a gateway; nothing was changed",
            next_step="give them different metrics",
        )
    replace_verified(netlink, matching[0], before, metrics, doing=doing)


def replace_verified(
    netlink: Netlink, route: Route, before: list[Route], metrics: Mapping[Metric, int], *, doing: str
) -> None:
    """Replace ``route``, one of ``before``, by itself with other ``metrics`` (0: without).

    Puts all back and raises :class:`Unavailable` if more than that changed.
    """
    netlink.change(RTM_NEWROUTE, NLM_F_REPLACE, rebuilt(route, metrics=metrics), doing=doing)
    siblings = _siblings(before, route.key)
    after = _siblings(dump(netlink, route.key.family), route.key)
    expected = Counter(_told(one, metrics, metrics if one is route else None) for one in siblings)
    if expected == Counter(_told(one, metrics) for one in after):
        return
    _put_back(netlink, siblings, after)
    raise Unavailable(
        f"the kernel did more than it was asked {doing}: of {len(siblings)} routes to "
        f"{route.key.destination} {len(after)} were left or changed",
        consequence="the routes were put back as they were",
        next_step="`--to` with a narrower network makes a route of its own and leaves this one alone",
    )


def _told(
    route: Route, names: Iterable[Metric], values: Mapping[Metric, int] | None = None
) -> tuple[bytes, tuple[int, ...]]:
    """A route for comparison: all but those metrics, and what each of them is, or is to be."""
    return route.essence(*names), tuple(values[name] if values else route.metric(name) for name in names)


def _siblings(routes: Iterable[Route], key: Key) -> list[Route]:
    """Routes to the same destination in the same table: all that one replacement can touch."""
    return [
        route for route in routes if (route.key.table, route.key.destination) == (key.table, key.destination)
    ]


def _put_back(netlink: Netlink, wanted: list[Route], present: list[Route]) -> None:
    """Make ``present`` what ``wanted`` is, in its order."""
    for route in present:
        delete(netlink, route, doing="to take back a route")
    for route in wanted:
        add(netlink, rebuilt(route), doing="to put back a route")
