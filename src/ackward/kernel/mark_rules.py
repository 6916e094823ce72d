"""Policy routing rules that go by one bit of the packet mark."""

from __future__ import annotations

from dataclasses import dataclass

from ackward.kernel import rule_message
from ackward.kernel.netlink import Netlink, u32
from ackward.kernel.rule_message import FWMARK, FWMASK, PRIORITY, PROTOCOL, TABLE

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


def dump(netlink: Netlink, family: int) -> list[MarkRule]:
    """All rules of one family that look at the mark, whatever else they look at."""
    return [
        MarkRule(
            family=family,
            preference=found.number(PRIORITY),
            mark=found.number(FWMARK),
            mask=found.number(FWMASK, _WHOLE_MARK),
            table=found.number(TABLE, found.table),
            protocol=found.protocol,
        )
        for found in rule_message.dump(netlink, family)
        if FWMARK in found.attributes or found.number(FWMASK)
    ]


def _encoded(rule: MarkRule) -> bytes:
    parts = (
        (PRIORITY, u32(rule.preference)),
        (TABLE, u32(rule.table)),
        (PROTOCOL, bytes([rule.protocol])),
        (FWMARK, u32(rule.mark)),
        (FWMASK, u32(rule.mask)),
    )
    return rule_message.encoded(rule.family, parts)


def _words(rule: MarkRule) -> str:
    return f"the IPv{rule.family} rule fwmark {rule.mark:#x}/{rule.mask:#x} lookup {rule.table}"


def add(netlink: Netlink, rule: MarkRule) -> None:
    """Add the rule; raises :class:`~ackward.errors.Unavailable` if the kernel refuses."""
    rule_message.add(netlink, _encoded(rule), _words(rule))


def delete(netlink: Netlink, rule: MarkRule) -> bool:
    """Delete the rule; false if it is gone already."""
    return rule_message.delete(netlink, _encoded(rule), _words(rule))
