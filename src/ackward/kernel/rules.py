"""Policy routing rules: read them, and add and delete rules of our own.

Raw rtnetlink, as :mod:`ackward.kernel.routes`: six attributes are needed, the plumbing is there already, and
unlike pyroute2 it costs no 235 ms import. Layout: include/uapi/linux/fib_rules.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from ackward.errors import Unavailable
from ackward.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute, attributes, u32

RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
# include/uapi/linux/fib_rules.h
_DST, _SRC, _IIFNAME, _PRIORITY, _FWMARK, _FLOW, _SUPPRESS_IFGROUP, _SUPPRESS_PREFIXLEN = (
    1,
    2,
    3,
    6,
    10,
    11,
    13,
    14,
)
_TABLE, _FWMASK, _OIFNAME, _PAD, _L3MDEV, _PROTOCOL, _IP_PROTO, _SPORT_RANGE, _DPORT_RANGE = (
    15, 16, 17, 18, 19, 21, 22, 23, 24,
)  # fmt: skip
TO_TABLE = 1  # FR_ACT_TO_TBL
_INVERT = 0x2  # FIB_RULE_INVERT
_NOTHING = 0xFFFFFFFF  # no suppression

_HEADER = struct.Struct("=8BI")

#: Attributes that do not narrow the traffic a rule matches.
_NOT_SELECTING = frozenset(
    {_PRIORITY, _TABLE, _PROTOCOL, _FLOW, _PAD, _SUPPRESS_IFGROUP, _SUPPRESS_PREFIXLEN, _FWMASK}
)


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
    raw_family, dst_length, src_length, tos, table8, _, _, action, flags = _HEADER.unpack_from(body)
    found = dict(attributes(body[_HEADER.size :]))
    suppressing = _number(found.get(_SUPPRESS_PREFIXLEN), _NOTHING) != _NOTHING or (
        _number(found.get(_SUPPRESS_IFGROUP), _NOTHING) != _NOTHING
    )
    sport, dport = _single_tcp_port(found, _SPORT_RANGE), _single_tcp_port(found, _DPORT_RANGE)
    return Rule(
        family=4 if raw_family == socket.AF_INET else 6,
        preference=_number(found.get(_PRIORITY), 0),
        table=_number(found.get(_TABLE), table8),
        action=action,
        protocol=found.get(_PROTOCOL, b"\0")[0],
        # What we do not know may select: an attribute of a newer kernel counts as a selector.
        selective=bool(tos or found.keys() - _NOT_SELECTING),
        inverted=bool(flags & _INVERT),
        suppressing=suppressing,
        sport=sport,
        dport=dport,
        selectors=_selector_words(raw_family, found, dst_length, src_length, tos),
    )


def _number(data: bytes | None, absent: int) -> int:
    return absent if data is None else int(struct.unpack_from("=I", data)[0])


def _single_tcp_port(found: dict[int, bytes], kind: int) -> int | None:
    if kind not in found or found.get(_IP_PROTO) != bytes([socket.IPPROTO_TCP]):
        return None
    first, last = struct.unpack_from("=HH", found[kind])
    return int(first) if first == last else None


def _selector_words(family: int, found: dict[int, bytes], dst_length: int, src_length: int, tos: int) -> str:
    words: list[str] = []
    for kind, name, length in ((_SRC, "from", src_length), (_DST, "to", dst_length)):
        if kind in found:
            words.append(f"{name} {socket.inet_ntop(family, found[kind])}/{length}")
    for kind, name in ((_IIFNAME, "iif"), (_OIFNAME, "oif")):
        if kind in found:
            words.append(f"{name} {found[kind].rstrip(bytes(1)).decode(errors='replace')}")
    if tos:
        words.append(f"tos {tos:#x}")
    if _FWMARK in found:
        words.append(f"fwmark {_number(found[_FWMARK], 0):#x}")
    if _IP_PROTO in found:
        words.append(f"ipproto {found[_IP_PROTO][0]}")
    for kind, name in ((_SPORT_RANGE, "sport"), (_DPORT_RANGE, "dport")):
        if kind in found:
            first, last = struct.unpack_from("=HH", found[kind])
            words.append(f"{name} {first}" if first == last else f"{name} {first}-{last}")
    if _L3MDEV in found:
        words.append("of a VRF")
    others = found.keys() - _NOT_SELECTING - {
        _SRC, _DST, _IIFNAME, _OIFNAME, _FWMARK, _IP_PROTO, _SPORT_RANGE, _DPORT_RANGE, _L3MDEV,
    }  # fmt: skip
    words += [f"attribute {kind}" for kind in sorted(others)]
    return " ".join(words)


def dump(netlink: Netlink, family: int) -> list[Rule]:
    """All rules of one family (4 or 6) in the order of consultation; none where the family is not there."""
    raw_family = socket.AF_INET if family == 4 else socket.AF_INET6
    messages = netlink.dump(RTM_GETRULE, _HEADER.pack(raw_family, 0, 0, 0, 0, 0, 0, 0, 0))
    return [
        parse(message.body)
        for message in messages
        # A kernel without IPv6 answers with the rules of all families.
        if message.type == RTM_NEWRULE and message.body[0] == raw_family
    ]


def _encoded(rule: Rule) -> bytes:
    family = socket.AF_INET if rule.family == 4 else socket.AF_INET6
    parts = [
        attribute(_PRIORITY, u32(rule.preference)),
        attribute(_TABLE, u32(rule.table)),
        attribute(_PROTOCOL, bytes([rule.protocol])),
        attribute(_IP_PROTO, bytes([socket.IPPROTO_TCP])),
    ]
    for kind, port in ((_SPORT_RANGE, rule.sport), (_DPORT_RANGE, rule.dport)):
        if port is not None:
            parts.append(attribute(kind, struct.pack("=HH", port, port)))
    return _HEADER.pack(family, 0, 0, 0, 0, 0, 0, TO_TABLE, 0) + b"".join(parts)


def add(netlink: Netlink, rule: Rule) -> None:
    """Add a rule for one TCP port; raises :class:`Unavailable` if the kernel has no such rules."""
    doing = f"to add the rule {rule.words}"
    netlink.change(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, _encoded(rule), doing=doing)
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
    gone = (errno.ENOENT, errno.ESRCH)
    return (
        netlink.change(RTM_DELRULE, 0, _encoded(rule), doing=f"to delete the rule {rule.words}", accept=gone)
        == 0
    )


def same(one: Rule, other: Rule) -> bool:
    """Whether two rules for a TCP port are the same in all that we set."""
    return (one.family, one.preference, one.table, one.protocol, one.sport, one.dport) == (
        other.family, other.preference, other.table, other.protocol, other.sport, other.dport,
    )  # fmt: skip
