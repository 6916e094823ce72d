"""Which route a connection takes, asked from the kernel itself, and whether that route says `quickack`.

RTM_GETROUTE carries addresses, ports, protocol, mark and user, so rules such as ``ipproto tcp sport 7000`` decide as
they do for the connection's own segments (inet_rtm_getroute(), inet6_rtm_getroute()). Needs no privilege.
"""

from __future__ import annotations

import socket
import struct

from ackward.errors import Unavailable
from ackward.kernel import route_message, rules
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import NLM_F_ACK, Netlink, attribute, u32
from ackward.kernel.routes import RTM_GETROUTE, RTM_NEWROUTE
from ackward.kernel.sock_diag import SocketRecord

# include/uapi/linux/rtnetlink.h
_DST, _SRC, _OIF, _MARK, _UID, _IP_PROTO, _SPORT, _DPORT = 1, 2, 4, 16, 25, 27, 28, 29
_RTMSG = struct.Struct("=8BI")
_TOS = 0x1C  # IPTOS_RT_MASK: the bits that routing goes by


class RouteLookup(Netlink):
    """Asks for routes inside one namespace; equal questions are asked once.

    ``hidden`` counts connections whose route depends on a mark that this user may not see.
    """

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace)
        self.hidden = 0
        self._answers: dict[bytes, bool | None] = {}
        self._rules = {family: self._rules_of(family) for family in (4, 6)}

    def _rules_of(self, family: int) -> tuple[bool, bool]:
        """Whether rules look at more than the destination, and whether at marks."""
        found = rules.dump(self, family)
        # Rules are told apart by what they match; of marks the one trace is in their words.
        return any(rule.selective for rule in found), any("fwmark" in rule.selectors for rule in found)

    def quickack(self, record: SocketRecord) -> bool | None:
        """Whether the route of a connection asks for an ACK at once.

        None if there is no route, or if rules look at its mark and that is hidden from this user.
        """
        selective, by_mark = self._rules[record.family]
        if by_mark and record.mark is None:
            self.hidden += 1
            return None
        # Where no rule looks further, ten thousand connections share a handful of answers.
        question = _question(record, with_ports=selective)
        if question not in self._answers:
            self._answers[question] = self._ask(question)
        return self._answers[question]

    def _ask(self, question: bytes) -> bool | None:
        try:
            answer, _ = self._exchange(RTM_GETROUTE, NLM_F_ACK, question, "to look up a route")
        except Unavailable:
            return None  # unreachable now, though the connection lives on
        routes = [route_message.parse(message.body) for message in answer if message.type == RTM_NEWROUTE]
        return bool(routes[0].quickack) if routes else None


def _question(record: SocketRecord, *, with_ports: bool) -> bytes:
    family = route_message.address_family(record.family)
    length = 32 if record.family == 4 else 128
    parts = [
        _RTMSG.pack(family, length, length, record.traffic_class & _TOS, 0, 0, 0, 0, 0),
        attribute(_DST, socket.inet_pton(family, record.remote[0])),
        attribute(_SRC, socket.inet_pton(family, record.local[0])),
    ]
    if record.interface:
        parts.append(attribute(_OIF, u32(record.interface)))
    if with_ports:
        parts += [
            attribute(_MARK, u32(record.mark or 0)),
            attribute(_UID, u32(record.uid)),
            attribute(_IP_PROTO, bytes([socket.IPPROTO_TCP])),
            attribute(_SPORT, struct.pack("!H", record.local[1])),
            attribute(_DPORT, struct.pack("!H", record.remote[1])),
        ]
    return b"".join(parts)
