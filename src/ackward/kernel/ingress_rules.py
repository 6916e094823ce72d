"""Policy routing rules for TCP that comes in at an interface for a network."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import ip_network

from ackward.kernel import rule_message
from ackward.kernel.netlink import Netlink, u32
from ackward.kernel.rule_message import DPORT_RANGE, DST, IIFNAME, IP_PROTO, PRIORITY, PROTOCOL, TABLE


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


def dump(netlink: Netlink, family: int) -> list[IngressRule]:
    """All rules of one family that look at the interface and the destination, whatever else they look at."""
    return [
        IngressRule(
            preference=found.number(PRIORITY),
            network=f"{socket.inet_ntop(found.family, found.attributes[DST])}/{found.dst_length}",
            interface=found.attributes[IIFNAME].rstrip(b"\0").decode(errors="replace"),
            ports=found.ports(DPORT_RANGE),
            table=found.number(TABLE, found.table),
            protocol=found.protocol,
        )
        for found in rule_message.dump(netlink, family)
        if IIFNAME in found.attributes and DST in found.attributes
    ]


def _encoded(rule: IngressRule) -> bytes:
    network = ip_network(rule.network)
    parts = [
        (PRIORITY, u32(rule.preference)),
        (TABLE, u32(rule.table)),
        (PROTOCOL, bytes([rule.protocol])),
        (IP_PROTO, bytes([socket.IPPROTO_TCP])),
        (IIFNAME, rule.interface.encode() + b"\0"),
        (DST, network.network_address.packed),
    ]
    if rule.ports is not None:
        parts.append((DPORT_RANGE, rule_message.ports(*rule.ports)))
    return rule_message.encoded(rule.family, parts, dst_length=network.prefixlen)


def _words(rule: IngressRule) -> str:
    ports = f" dport {rule.ports[0]}-{rule.ports[1]}" if rule.ports else ""
    return f"the rule to {rule.network} iif {rule.interface} ipproto tcp{ports} lookup {rule.table}"


def add(netlink: Netlink, rule: IngressRule) -> None:
    """Add the rule; raises :class:`~ackward.errors.Unavailable` if the kernel refuses."""
    rule_message.add(netlink, _encoded(rule), _words(rule))


def delete(netlink: Netlink, rule: IngressRule) -> bool:
    """Delete the rule; false if it is gone already."""
    return rule_message.delete(netlink, _encoded(rule), _words(rule))
