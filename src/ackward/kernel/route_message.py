"""Routes as bytes: read what the kernel dumped, word the request that changes one thing only.

Pure. ``ip route change`` and ``replace`` drop every attribute that is not repeated (src, mtu, advmss,
initcwnd, proto, pref), and pyroute2 loses some when it re-encodes. So a request here is the dumped message
itself, verbatim, known attributes or not, with the one field edited. Layout: include/uapi/linux/rtnetlink.h.
Standard library only.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from ackward.kernel.netlink import attribute, attributes, u32

if TYPE_CHECKING:  # pydantic is more than the process that follows main can afford
    from ackward.model.changes import Metric

Network = IPv4Network | IPv6Network

# include/uapi/linux/rtnetlink.h
_DST, _SRC, _OIF, _GATEWAY, _PRIORITY, _METRICS, _MULTIPATH, _CACHEINFO = 1, 2, 4, 5, 6, 8, 9, 12
_TABLE, _VIA, _ENCAP_TYPE, _ENCAP, _EXPIRES, _NH_ID = 15, 18, 21, 22, 23, 30
#: The metrics (RTAX_*) that can be set here.
RTAX: Mapping[Metric, int] = {"initcwnd": 11, "initrwnd": 14, "quickack": 15}
UNICAST, LOCAL, THROW = 1, 2, 9
_SCOPE_HOST = 254  # RT_SCOPE_HOST
_LOOPBACK = 1  # the kernel gives every namespace's lo this number (LOOPBACK_IFINDEX)
TABLE_COMPAT, TABLE_MAIN, TABLE_LOCAL = 252, 254, 255
PROTOCOL_RA = 9
_CLONED, _DEAD = 0x200, 0x1  # RTM_F_CLONED, RTNH_F_DEAD
# RTNH_F_PERVASIVE and RTNH_F_ONLINK are configuration; the other RTNH_F_* and RTM_F_* are state, which the
# kernel rejects in a request.
_CONFIGURED = 0x2 | 0x4
# A route through a nexthop object is dumped with that object's contents too; the kernel rejects both together
# (fib_create_info(), ip6_route_info_create()).
_BELONGS_TO_NEXTHOP = frozenset({_OIF, _GATEWAY, _MULTIPATH, _VIA, _ENCAP_TYPE, _ENCAP})

_RTMSG = struct.Struct("=8BI")
_RTNEXTHOP = struct.Struct("=HBBi")


@dataclass(frozen=True)
class NextHop:
    """Where a route leads: a gateway's address, an interface, or both."""

    gateway: str | None
    interface: int | None

    def words(self, interfaces: Mapping[int, str]) -> str:
        """As ``ip route`` prints it; ``interfaces`` names the interfaces of the route's namespace."""
        parts = [f"via {self.gateway}"] if self.gateway else []
        if self.interface is not None:
            parts.append(f"dev {interfaces.get(self.interface, f'#{self.interface}')}")
        return " ".join(parts)


@dataclass(frozen=True)
class Key:
    """What NLM_F_REPLACE goes by: fib_table_insert() and fib6_add_rt2node() hit the first route with it."""

    family: int
    destination: Network
    source: Network | None
    tos: int
    table: int
    metric: int


@dataclass(frozen=True)
class Route:
    """A route as the kernel dumped it. ``body`` is its message.

    ``dead``: its interface is down. ``cached``: a path MTU or redirect that the kernel keeps, not a route.
    ``learned``: the kernel learned it from a router advertisement (RTF_ADDRCONF) and withdraws it on the
    router's word. A replaced route loses that mark for ever, so such a route must not be replaced.
    """

    key: Key
    type: int
    protocol: int
    scope: int
    next_hops: tuple[NextHop, ...]
    nexthop_id: int | None
    dead: bool
    cached: bool
    expires: bool
    body: bytes
    learned: bool = False

    def via(self, interfaces: Mapping[int, str]) -> str:
        """Where it leads, in words."""
        hops = " and ".join(hop.words(interfaces) for hop in self.next_hops)
        return f"nhid {self.nexthop_id}" if self.nexthop_id is not None and not hops else hops

    def metric(self, name: Metric) -> int:
        """A metric of :data:`RTAX`; 0 when absent, which is how the kernel says it."""
        metrics = dict(attributes(self.body[_RTMSG.size :])).get(_METRICS, b"")
        return _number(dict(attributes(metrics)).get(RTAX[name]))

    @property
    def quickack(self) -> int:
        """The metric that makes this end acknowledge at once."""
        return self.metric("quickack")

    def essence(self, *but_for: Metric) -> bytes:
        """All that the route is, but for some metrics and the seconds that an expiring route has left."""
        blank = rebuilt(self, metrics=dict.fromkeys(but_for, 0), expiry=False)
        return canonical(blank) + (b"expires" if self.expires else b"")


def address_family(family: int) -> socket.AddressFamily:
    """The socket address family of IPv4 or IPv6."""
    return socket.AF_INET if family == 4 else socket.AF_INET6


def address(family: int, data: bytes) -> str:
    """An address in words."""
    return socket.inet_ntop(address_family(family), data)


def network(family: int, data: bytes | None, length: int) -> Network:
    """A prefix; no ``data`` stands for the unspecified address."""
    if family == 4:
        return IPv4Network((data or bytes(4), length))
    return IPv6Network((data or bytes(16), length))


def _via(data: bytes) -> str:
    """RTA_VIA: a gateway of another family (IPv4 over an IPv6 gateway, RFC 8950)."""
    (family,) = struct.unpack_from("=H", data)
    return "inet6 " + address(6, data[2:]) if family == socket.AF_INET6 else address(4, data[2:6])


def _hop(family: int, found: dict[int, bytes], interface: int | None) -> NextHop:
    if _GATEWAY in found:
        return NextHop(address(family, found[_GATEWAY]), interface)
    return NextHop(_via(found[_VIA]) if _VIA in found else None, interface)


def _multipath(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """The records (struct rtnexthop) as (length, flags, hops, interface, nested attributes)."""
    at = 0
    while at + _RTNEXTHOP.size <= len(data):
        length, flags, hops, interface = _RTNEXTHOP.unpack_from(data, at)
        if length < _RTNEXTHOP.size:
            return
        end = at + ((length + 3) & ~3)
        yield length, flags, hops, interface, data[at + _RTNEXTHOP.size : end]
        at = end


def _number(data: bytes | None) -> int:
    return 0 if data is None else int(struct.unpack_from("=I", data)[0])


# Each change is proven by dumps before and after it, in which nearly all routes are the same bytes.
@functools.lru_cache(maxsize=512)
def parse(body: bytes) -> Route:
    """The route in the body of an RTM_NEWROUTE or RTM_DELROUTE message of either family."""
    raw_family, dst_length, src_length, tos, table, protocol, scope, kind, flags = _RTMSG.unpack_from(body)
    family = 4 if raw_family == socket.AF_INET else 6
    found = dict(attributes(body[_RTMSG.size :]))
    if _MULTIPATH in found:
        next_hops = tuple(
            _hop(family, dict(attributes(nested)), interface)
            for _, _, _, interface, nested in _multipath(found[_MULTIPATH])
        )
    else:
        hop = _hop(family, found, _number(found[_OIF]) if _OIF in found else None)
        next_hops = () if hop == NextHop(None, None) else (hop,)
    key = Key(
        family=family,
        destination=network(family, found.get(_DST), dst_length),
        source=network(family, found.get(_SRC), src_length) if src_length else None,
        tos=tos,
        table=_number(found[_TABLE]) if _TABLE in found else table,
        metric=_number(found.get(_PRIORITY)),
    )
    return Route(
        key=key,
        type=kind,
        protocol=protocol,
        scope=scope,
        next_hops=next_hops,
        nexthop_id=_number(found[_NH_ID]) if _NH_ID in found else None,
        dead=bool(flags & _DEAD),
        cached=bool(flags & _CLONED),
        expires=_EXPIRES in found or _expiry(found.get(_CACHEINFO)) is not None,
        body=body,
    )


def _expiry(cacheinfo: bytes | None) -> int | None:
    """The seconds left, at least 1; none if for ever. In struct rta_cacheinfo rta_expires is in USER_HZ."""
    if cacheinfo is None:
        return None
    (ticks,) = struct.unpack_from("=i", cacheinfo, 8)
    hertz = os.sysconf("SC_CLK_TCK")
    # Negative: overdue, to be collected. Dropping the expiry would make it a route for ever.
    return None if ticks == 0 else max(1, -(-ticks // hertz))


def rebuilt(
    route: Route,
    *,
    metrics: Mapping[Metric, int] | None = None,
    expiry: bool = True,
    table: int | None = None,
    protocol: int | None = None,
    destination: Network | None = None,
) -> bytes:
    """The RTM_NEWROUTE body equal to ``route`` but for what is named.

    A metric of 0 is removed. Every attribute is copied verbatim, known or not, but for those that a dump words
    differently from a request.
    """
    family, dst_length, src_length, tos, table8, protocol8, scope, kind, flags = _RTMSG.unpack_from(
        route.body
    )
    parts: list[bytes] = []
    present: dict[int, bytes] = {}
    for name, value in attributes(route.body[_RTMSG.size :]):
        if name == _METRICS:
            present = dict(attributes(value))
        elif name in (_CACHEINFO, _EXPIRES):
            seconds = _expiry(value) if name == _CACHEINFO else _number(value)
            if expiry and seconds is not None:
                parts.append(attribute(_EXPIRES, u32(seconds)))
        elif name == _MULTIPATH and route.nexthop_id is None:
            parts.append(attribute(_MULTIPATH, _without_state(value)))
        elif (route.nexthop_id is not None and name in _BELONGS_TO_NEXTHOP) or (
            (name == _TABLE and table is not None) or (name == _DST and destination is not None)
        ):
            continue
        else:
            parts.append(attribute(name, value))
    if table is not None:
        parts.append(attribute(_TABLE, u32(table)))
        table8 = table if table < 256 else TABLE_COMPAT
    if destination is not None:
        parts.append(attribute(_DST, destination.network_address.packed))
        dst_length = destination.prefixlen
    if metrics:
        present |= {RTAX[metric]: u32(number) for metric, number in metrics.items()}
        zeros = [RTAX[metric] for metric, number in metrics.items() if not number]
        # Without metrics fib_create_info() shares whatever it has for the same nexthop object, their metrics and
        # all (fib_find_info_nh()); a zero says absent, and asks for one of its own.
        if len(present) == len(zeros) and route.nexthop_id is not None:
            zeros.pop()
        present = {kind: value for kind, value in present.items() if kind not in zeros}
    if present:
        parts.append(attribute(_METRICS, b"".join(attribute(*metric) for metric in sorted(present.items()))))
    header = _RTMSG.pack(
        family,
        dst_length,
        src_length,
        tos,
        table8,
        protocol8 if protocol is None else protocol,
        scope,
        kind,
        flags & _CONFIGURED,
    )
    return header + b"".join(parts)


def _without_state(multipath: bytes) -> bytes:
    return b"".join(
        _RTNEXTHOP.pack(length, flags & _CONFIGURED, hops, interface) + nested
        for length, flags, hops, interface, nested in _multipath(multipath)
    )


def dump_request(family: int) -> bytes:
    """The body of the RTM_GETROUTE that asks for all routes of a family."""
    return _RTMSG.pack(address_family(family), 0, 0, 0, 0, 0, 0, 0, 0)


def canonical(body: bytes) -> bytes:
    """A body with its attributes sorted: the kernel dumps them in another order than they came in."""
    parts = sorted(attribute(*part) for part in attributes(body[_RTMSG.size :]))
    return body[: _RTMSG.size] + b"".join(parts)


def throw(route: Route, *, protocol: int, table: int) -> bytes:
    """The RTM_NEWROUTE body of a route in ``table`` that sends the destination on to the next rule."""
    key = route.key
    family = address_family(key.family)
    source_length = key.source.prefixlen if key.source else 0
    header = _RTMSG.pack(
        family, key.destination.prefixlen, source_length, key.tos, TABLE_COMPAT, protocol, 0, THROW, 0
    )
    parts = [attribute(_DST, key.destination.network_address.packed), attribute(_TABLE, u32(table))]
    if key.source:
        parts.append(attribute(_SRC, key.source.network_address.packed))
    if key.metric:
        parts.append(attribute(_PRIORITY, u32(key.metric)))
    return header + b"".join(parts)


def local(destination: Network, *, protocol: int, table: int) -> bytes:
    """The RTM_NEWROUTE body of a route in ``table`` that delivers the destination to this host's sockets."""
    family = address_family(destination.version)
    header = _RTMSG.pack(family, destination.prefixlen, 0, 0, TABLE_COMPAT, protocol, _SCOPE_HOST, LOCAL, 0)
    parts = (
        attribute(_DST, destination.network_address.packed),
        attribute(_TABLE, u32(table)),
        attribute(_OIF, u32(_LOOPBACK)),
    )
    return header + b"".join(parts)
