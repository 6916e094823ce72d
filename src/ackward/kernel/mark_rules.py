"""Policy routing rules that go by one bit of the packet mark. Layout: include/uapi/linux/fib_rules.h."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from ackward.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute, attributes, u32
from ackward.kernel.rules import RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE, TO_TABLE

_PRIORITY, _FWMARK, _TABLE, _FWMASK, _PROTOCOL = 6, 10, 15, 16, 21
_HEADER = struct.Struct("=8BI")
_WHOLE_MARK = 0xFFFFFFFF


@dataclass(frozen=True)
class MarkRule:
    """``fwmark mark/mask lookup table``; ``family`` is 4 or 6, ``protocol`` says who made it (RTPROT_*)."""

    family: int
    preference: int
    mark: int
    mask: int
    table: int
    protocol: int


def _raw_family(family: int) -> int:
    return socket.AF_INET if family == 4 else socket.AF_INET6


def _number(data: bytes | None, absent: int = 0) -> int:
    return absent if data is None else int(struct.unpack_from("=I", data)[0])


def dump(netlink: Netlink, family: int) -> list[MarkRule]:
    """All rules of one family that look at the mark, whatever else they look at."""
    raw_family = _raw_family(family)
    found = []
    for message in netlink.dump(RTM_GETRULE, _HEADER.pack(raw_family, 0, 0, 0, 0, 0, 0, 0, 0)):
        # A kernel without IPv6 answers with the rules of all families.
        if message.type != RTM_NEWRULE or message.body[0] != raw_family:
            continue
        has = dict(attributes(message.body[_HEADER.size :]))
        if _FWMARK not in has and not _number(has.get(_FWMASK)):
            continue
        found.append(
            MarkRule(
                family=family,
                preference=_number(has.get(_PRIORITY)),
                mark=_number(has.get(_FWMARK)),
                mask=_number(has.get(_FWMASK), _WHOLE_MARK),
                table=_number(has.get(_TABLE), message.body[4]),
                protocol=has.get(_PROTOCOL, b"\0")[0],
            )
        )
    return found


def _encoded(rule: MarkRule) -> bytes:
    parts = (
        (_PRIORITY, u32(rule.preference)),
        (_TABLE, u32(rule.table)),
        (_PROTOCOL, bytes([rule.protocol])),
        (_FWMARK, u32(rule.mark)),
        (_FWMASK, u32(rule.mask)),
    )
    header = _HEADER.pack(_raw_family(rule.family), 0, 0, 0, 0, 0, 0, TO_TABLE, 0)
    return header + b"".join(attribute(kind, value) for kind, value in parts)


def _words(rule: MarkRule) -> str:
    return f"the IPv{rule.family} rule fwmark {rule.mark:#x}/{rule.mask:#x} lookup {rule.table}"


def add(netlink: Netlink, rule: MarkRule) -> None:
    """Add the rule; raises :class:`Unavailable` if the kernel refuses."""
    netlink.change(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, _encoded(rule), doing=f"to add {_words(rule)}")


def delete(netlink: Netlink, rule: MarkRule) -> bool:
    """Delete the rule; false if it is gone already."""
    gone = (errno.ENOENT, errno.ESRCH)
    doing = f"to delete {_words(rule)}"
    return netlink.change(RTM_DELRULE, 0, _encoded(rule), doing=doing, accept=gone) == 0
