"""Policy routing rules for TCP that comes in at an interface for a network. Layout: include/uapi/linux/fib_rules.h."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_network

from ackward.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute, attributes, u32
from ackward.kernel.rules import RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE, TO_TABLE

_DST, _IIFNAME, _PRIORITY, _TABLE, _PROTOCOL, _IP_PROTO, _DPORT_RANGE = 1, 3, 6, 15, 21, 22, 24
_HEADER = struct.Struct("=8BI")


@dataclass(frozen=True)
class IngressRule:
    """``to network iif interface ipproto tcp dport ports lookup table``; ``protocol`` says who made it (RTPROT_*).

    ``ports``: the first and the last; None: all.
    """

    preference: int
    network: str
    interface: str
    ports: tuple[int, int] | None
    table: int
    protocol: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return ip_network(self.network).version


def _raw_family(family: int) -> int:
    return socket.AF_INET if family == 4 else socket.AF_INET6


def _number(data: bytes | None) -> int:
    return 0 if data is None else int(struct.unpack_from("=I", data)[0])


def dump(netlink: Netlink, family: int) -> list[IngressRule]:
    """All rules of one family that look at the interface and the destination, whatever else they look at."""
    raw_family = _raw_family(family)
    found = []
    for message in netlink.dump(RTM_GETRULE, _HEADER.pack(raw_family, 0, 0, 0, 0, 0, 0, 0, 0)):
        # A kernel without IPv6 answers with the rules of all families.
        if message.type != RTM_NEWRULE or message.body[0] != raw_family:
            continue
        has = dict(attributes(message.body[_HEADER.size :]))
        if _IIFNAME not in has or _DST not in has:
            continue
        found.append(
            IngressRule(
                preference=_number(has.get(_PRIORITY)),
                network=f"{socket.inet_ntop(raw_family, has[_DST])}/{message.body[1]}",
                ports=struct.unpack("=HH", has[_DPORT_RANGE]) if _DPORT_RANGE in has else None,
                interface=has[_IIFNAME].rstrip(b"\0").decode(errors="replace"),
                table=_number(has.get(_TABLE)) or message.body[4],
                protocol=has.get(_PROTOCOL, b"\0")[0],
            )
        )
    return found


def _encoded(rule: IngressRule) -> bytes:
    network = ip_network(rule.network)
    parts = [
        (_PRIORITY, u32(rule.preference)),
        (_TABLE, u32(rule.table)),
        (_PROTOCOL, bytes([rule.protocol])),
        (_IP_PROTO, bytes([socket.IPPROTO_TCP])),
        (_IIFNAME, rule.interface.encode() + b"\0"),
        (_DST, network.network_address.packed),
    ]
    if rule.ports is not None:
        parts.append((_DPORT_RANGE, struct.pack("=HH", *rule.ports)))
    header = _HEADER.pack(_raw_family(rule.family), network.prefixlen, 0, 0, 0, 0, 0, TO_TABLE, 0)
    return header + b"".join(attribute(kind, value) for kind, value in parts)


def _words(rule: IngressRule) -> str:
    ports = f" dport {rule.ports[0]}-{rule.ports[1]}" if rule.ports else ""
    return f"the rule to {rule.network} iif {rule.interface} ipproto tcp{ports} lookup {rule.table}"


def add(netlink: Netlink, rule: IngressRule) -> None:
    """Add the rule; raises :class:`Unavailable` if the kernel refuses."""
    netlink.change(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, _encoded(rule), doing=f"to add {_words(rule)}")


def delete(netlink: Netlink, rule: IngressRule) -> bool:
    """Delete the rule; false if it is gone already."""
    gone = (errno.ENOENT, errno.ESRCH)
    doing = f"to delete {_words(rule)}"
    return netlink.change(RTM_DELRULE, 0, _encoded(rule), doing=doing, accept=gone) == 0
