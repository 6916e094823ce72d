"""Messages about policy routing rules, and what all kinds of rules of ours share: list, add, delete.

Raw rtnetlink, as :mod:`ackward.kernel.routes`: unlike pyroute2 it costs no 235 ms import. Layout:
include/uapi/linux/fib_rules.h. Standard library only.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ackward.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute, attributes
from ackward.kernel.route_message import address_family

RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34  # include/uapi/linux/rtnetlink.h
# FRA_*
DST, SRC, IIFNAME, PRIORITY, FWMARK, FLOW, SUPPRESS_IFGROUP, SUPPRESS_PREFIXLEN = 1, 2, 3, 6, 10, 11, 13, 14
TABLE, FWMASK, OIFNAME, PAD, L3MDEV, PROTOCOL, IP_PROTO, SPORT_RANGE, DPORT_RANGE = (
    15, 16, 17, 18, 19, 21, 22, 23, 24,
)  # fmt: skip
TO_TABLE = 1  # FR_ACT_TO_TBL
INVERT = 0x2  # FIB_RULE_INVERT

#: struct fib_rule_hdr: family, two prefixes' lengths, TOS, table, two reserved, action, flags.
_HEADER = struct.Struct("=8BI")
_PORTS = struct.Struct("=HH")


@dataclass(frozen=True)
class RuleMessage:
    """The header of a rule, with ``family`` as the socket API numbers it, and its attributes by FRA_*."""

    family: int
    dst_length: int
    src_length: int
    tos: int
    table: int
    action: int
    flags: int
    attributes: Mapping[int, bytes]

    def number(self, kind: int, absent: int = 0) -> int:
        """An attribute of 32 bits."""
        value = self.attributes.get(kind)
        return absent if value is None else int(struct.unpack_from("=I", value)[0])

    def ports(self, kind: int) -> tuple[int, int] | None:
        """An attribute that is a range of ports: the first and the last."""
        value = self.attributes.get(kind)
        return None if value is None else _PORTS.unpack_from(value)

    @property
    def protocol(self) -> int:
        """Who made the rule (RTPROT_*); 0: not told."""
        return self.attributes.get(PROTOCOL, b"\0")[0]


def ports(first: int, last: int) -> bytes:
    """The value of an attribute that is a range of ports."""
    return _PORTS.pack(first, last)


def parse(body: bytes) -> RuleMessage:
    """The rule in the body of an RTM_NEWRULE or RTM_DELRULE message."""
    family, dst_length, src_length, tos, table, _, _, action, flags = _HEADER.unpack_from(body)
    found = dict(attributes(body[_HEADER.size :]))
    return RuleMessage(family, dst_length, src_length, tos, table, action, flags, found)


def dump(netlink: Netlink, family: int) -> list[RuleMessage]:
    """All rules of one family (4 or 6) in the order of consultation; none where the family is not there."""
    raw = address_family(family)
    messages = netlink.dump(RTM_GETRULE, _HEADER.pack(raw, 0, 0, 0, 0, 0, 0, 0, 0))
    found = [parse(message.body) for message in messages if message.type == RTM_NEWRULE]
    # A kernel without IPv6 may answer with the rules of all families.
    return [rule for rule in found if rule.family == raw]


def encoded(family: int, parts: Iterable[tuple[int, bytes]], *, dst_length: int = 0) -> bytes:
    """The body of a request about a rule that leads to a table."""
    header = _HEADER.pack(address_family(family), dst_length, 0, 0, 0, 0, 0, TO_TABLE, 0)
    return header + b"".join(attribute(kind, value) for kind, value in parts)


def add(netlink: Netlink, body: bytes, words: str) -> None:
    """Add the rule; raises :class:`~ackward.errors.Unavailable` if the kernel refuses, or has it already."""
    netlink.change(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, body, doing=f"to add {words}")


def delete(netlink: Netlink, body: bytes, words: str) -> bool:
    """Delete the rule; false if it is gone already."""
    gone = (errno.ENOENT, errno.ESRCH)
    return netlink.change(RTM_DELRULE, 0, body, doing=f"to delete {words}", accept=gone) == 0
