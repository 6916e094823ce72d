"""Policy routing rules, whatever they go by: read them, and add and delete rules of our own for a TCP port."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from ackward.errors import Unavailable
from ackward.kernel import rule_message
from ackward.kernel.netlink import Netlink, u32
from ackward.kernel.rule_message import (
    DPORT_RANGE,
    DST,
    FLOW,
    FWMARK,
    FWMASK,
    IIFNAME,
    INVERT,
    IP_PROTO,
    L3MDEV,
    OIFNAME,
    PAD,
    PRIORITY,
    PROTOCOL,
    SPORT_RANGE,
    SRC,
    SUPPRESS_IFGROUP,
    SUPPRESS_PREFIXLEN,
    TABLE,
    TO_TABLE,
    RuleMessage,
)

_NOTHING = 0xFFFFFFFF  # no suppression

#: Attributes that do not narrow the traffic a rule matches.
_NOT_SELECTING = frozenset(
    {PRIORITY, TABLE, PROTOCOL, FLOW, PAD, SUPPRESS_IFGROUP, SUPPRESS_PREFIXLEN, FWMASK}
)
#: Attributes that narrow it and have words.
_SELECTING = frozenset({SRC, DST, IIFNAME, OIFNAME, FWMARK, IP_PROTO, SPORT_RANGE, DPORT_RANGE, L3MDEV})


@dataclass(frozen=True)
class Rule:
    """A rule. ``family`` is 4 or 6. ``selective``: it matches part of the traffic only.

    ``suppressing``: it ignores some routes of its table. ``sport`` and ``dport`` are set for a single TCP
    port.
    """

    family: int
    preference: int
    table: int
    action: int = TO_TABLE
    protocol: int = 0
    selective: bool = False
    inverted: bool = False
    suppressing: bool = False
    sport: int | None = None
    dport: int | None = None
    selectors: str = ""

    @property
    def words(self) -> str:
        """About as ``ip rule`` prints it."""
        negation = "not " if self.inverted else ""
        action = f"lookup {self.table}" if self.action == TO_TABLE else f"action {self.action}"
        suppression = " suppressing some of its routes" if self.suppressing else ""
        return f"{self.preference}: {negation}{self.selectors or 'from all'} {action}{suppression}"


def parse(body: bytes) -> Rule:
    """The rule in the body of an RTM_NEWRULE or RTM_DELRULE message."""
    return _rule(rule_message.parse(body))


def _rule(found: RuleMessage) -> Rule:
    suppressions = (SUPPRESS_PREFIXLEN, SUPPRESS_IFGROUP)
    return Rule(
        family=4 if found.family == socket.AF_INET else 6,
        preference=found.number(PRIORITY),
        table=found.number(TABLE, found.table),
        action=found.action,
        protocol=found.protocol,
        # What we do not know may select: an attribute of a newer kernel counts as a selector.
        selective=bool(found.tos or found.attributes.keys() - _NOT_SELECTING),
        inverted=bool(found.flags & INVERT),
        suppressing=any(found.number(kind, _NOTHING) != _NOTHING for kind in suppressions),
        sport=_single_tcp_port(found, SPORT_RANGE),
        dport=_single_tcp_port(found, DPORT_RANGE),
        selectors=" ".join(_selector_words(found)),
    )


def _single_tcp_port(found: RuleMessage, kind: int) -> int | None:
    ports = found.ports(kind)
    if ports is None or found.attributes.get(IP_PROTO) != bytes([socket.IPPROTO_TCP]):
        return None
    first, last = ports
    return first if first == last else None


def _selector_words(found: RuleMessage) -> list[str]:
    words: list[str] = []
    has = found.attributes
    for kind, name, length in ((SRC, "from", found.src_length), (DST, "to", found.dst_length)):
        if kind in has:
            words.append(f"{name} {socket.inet_ntop(found.family, has[kind])}/{length}")
    for kind, name in ((IIFNAME, "iif"), (OIFNAME, "oif")):
        if kind in has:
            words.append(f"{name} {has[kind].rstrip(bytes(1)).decode(errors='replace')}")
    if found.tos:
        words.append(f"tos {found.tos:#x}")
    if FWMARK in has:
        words.append(f"fwmark {found.number(FWMARK):#x}")
    if IP_PROTO in has:
        words.append(f"ipproto {has[IP_PROTO][0]}")
    for kind, name in ((SPORT_RANGE, "sport"), (DPORT_RANGE, "dport")):
        if ports := found.ports(kind):
            first, last = ports
            words.append(f"{name} {first}" if first == last else f"{name} {first}-{last}")
    if L3MDEV in has:
        words.append("of a VRF")
    return words + [f"attribute {kind}" for kind in sorted(has.keys() - _NOT_SELECTING - _SELECTING)]


def dump(netlink: Netlink, family: int) -> list[Rule]:
    """All rules of one family (4 or 6) in the order of consultation; none where the family is not there."""
    return [_rule(found) for found in rule_message.dump(netlink, family)]


def _encoded(rule: Rule) -> bytes:
    parts = [
        (PRIORITY, u32(rule.preference)),
        (TABLE, u32(rule.table)),
        (PROTOCOL, bytes([rule.protocol])),
        (IP_PROTO, bytes([socket.IPPROTO_TCP])),
    ]
    parts += [
        (kind, rule_message.ports(port, port))
        for kind, port in ((SPORT_RANGE, rule.sport), (DPORT_RANGE, rule.dport))
        if port is not None
    ]
    return rule_message.encoded(rule.family, parts)


def add(netlink: Netlink, rule: Rule) -> None:
    """Add a rule for one TCP port; raises :class:`Unavailable` if the kernel has no such rules."""
    rule_message.add(netlink, _encoded(rule), f"the rule {rule.words}")
    if not any(same(found, rule) for found in dump(netlink, rule.family)):
        # Before Linux 4.17 unknown attributes were ignored: what was added then matches everything.
        delete(netlink, rule)
        raise Unavailable(
            "this kernel has no rules for TCP ports (FRA_IP_PROTO, FRA_SPORT_RANGE)",
            consequence="quickack cannot be scoped to a port; the rule was taken back",
            next_step="use `ackward fix quickack` for routes",
        )


def delete(netlink: Netlink, rule: Rule) -> bool:
    """Delete a rule for one TCP port; false if it is gone already."""
    return rule_message.delete(netlink, _encoded(rule), f"the rule {rule.words}")


def same(one: Rule, other: Rule) -> bool:
    """Whether two rules for a TCP port are the same in all that we set."""
    return (one.family, one.preference, one.table, one.protocol, one.sport, one.dport) == (
        other.family, other.preference, other.table, other.protocol, other.sport, other.dport,
    )  # fmt: skip
