"""From frames to the TCP segments in them: link layers, VLAN tags, IPv4, IPv6 and its extension headers, VXLAN.

All packets of a chunk go through a layer together. What cannot be followed is counted in ``skipped`` under one of the
reasons below, so that packets = segments + everything skipped.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ackward.capture.frames import Frames
from ackward.capture.interning import Interning
from ackward.capture.octets import Octets, Positions, column, distinct

#: Where VXLAN goes unless somebody chose another port (RFC 7348 section 5); Linux' own default is 8472.
VXLAN_PORT = 4789
NOT_IP = "not IP"
NOT_TCP = "not TCP"
FRAGMENT = "later IP fragments"
CUT = "headers cut by the snap length"
BAD = "headers that contradict themselves"
UNKNOWN_LINK = "link layers that are not understood"
NOT_ASKED = "of connections that were not asked for"

IPV4, IPV6 = 0x0800, 0x86DD
VLAN_TAGS = (0x8100, 0x88A8, 0x9100)  # 802.1Q, 802.1ad, and what came before it
#: More tags than this are not a network but an attack; the rest of the packet is not looked at.
MOST_TAGS = 8
#: Likewise. RFC 8200 section 4.1 knows seven kinds of extension headers, of which one may come twice.
MOST_EXTENSIONS = 12
TCP, UDP = 6, 17
HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, AUTHENTICATION, DESTINATION, MOBILITY = 0, 43, 44, 51, 60, 135
VXLAN_HEADER = 8
#: Marks the number of an IPv6 address among the codes of addresses; those of IPv4 are the addresses themselves.
FAMILY_6 = 1 << 32

#: Link type -> bytes of its header and where in it the EtherType is (tcpdump.org/linktypes.html).
ETHERTYPE_LINKS = {1: (14, 12), 113: (16, 14), 276: (20, 0)}
ETHERNET = 1
RAW_LINKS = (12, 14, 101, 228, 229)
#: Link type of Linux cooked captures -> where the packet type ends, whose last byte is all of it that is used.
PACKET_TYPE_LINKS = {113: 2, 276: 11}
#: Packet types of Linux cooked captures: sent by the host that captured, or to it (tcpdump.org/linktypes.html).
TYPE_TO_US, TYPE_OUTGOING = 0, 4
NULL, LOOP = 0, 108
#: AF_INET6 of Linux, OpenBSD, FreeBSD, Darwin and Windows; AF_INET is 2 everywhere.
FAMILIES_6 = (10, 23, 24, 28, 30)


@dataclass(frozen=True)
class Packets:
    """What is known of packets on their way up through the layers; one entry a packet.

    ``at`` is where the next header begins, ``end`` where the captured bytes end, ``wire_end`` where the
    packet would end had all of it been captured: first by the frame's length, then by that in the IP header.
    ``row`` is the index of the frame. ``source`` and ``destination`` are codes of addresses
    (:func:`address_of`), ``tunnel`` is 0 outside VXLAN, else one more than the network identifier.
    """

    row: NDArray[np.int64]
    at: Positions
    end: Positions
    wire_end: Positions
    source: NDArray[np.uint64]
    destination: NDArray[np.uint64]
    tunnel: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.row)

    def select(self, which: NDArray[np.bool_]) -> Self:
        """These packets only."""
        return type(self)(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def joined(self, other: Self) -> Self:
        """These packets and others, in the order of the frames that they came in."""
        order = np.argsort(np.concatenate([self.row, other.row]), kind="stable")
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return type(self)(*(np.concatenate(pair)[order] for pair in pairs))


class Layers:
    """Takes frames apart down to the TCP header.

    ``vxlan`` is the UDP port of tunnels to look into; without it, ``passed_tunnels`` counts what may have been some.
    """

    def __init__(self, *, vxlan: int | None = None) -> None:
        self.skipped: Counter[str] = Counter()
        self.unknown_links: set[int] = set()
        self.addresses = Interning()
        self._vxlan = vxlan
        self.passed_tunnels = 0

    def segments(self, octets: Octets, frames: Frames) -> Packets:
        """The frames that hold a TCP header; ``at`` is where it begins, ``wire_end`` where its payload ends."""
        end = frames.start + frames.captured
        none = np.zeros(len(frames), np.uint64)
        packets = Packets(
            np.arange(len(frames)), frames.start, end, frames.start + frames.original, none, none, none
        )
        if not len(frames):
            return packets
        links = distinct(frames.link)
        if len(links) == 1:
            return self._frames(octets, packets, links[0], inside=False)
        found = packets.select(np.zeros(len(packets), np.bool_))
        for link in links:
            one = packets.select(frames.link == link)
            found = found.joined(self._frames(octets, one, link, inside=False))
        return found

    def address_of(self, code: int) -> IPv4Address | IPv6Address:
        """The address that a code stands for."""
        if not code & FAMILY_6:
            return IPv4Address(code)
        number = code & (FAMILY_6 - 1)
        return IPv6Address(int(self.addresses.high[number]) << 64 | int(self.addresses.low[number]))

    def code_of(self, address: IPv4Address | IPv6Address) -> int:
        """The code of an address, whether it was seen or not."""
        if address.version == 4:
            return int(address)
        high, low = divmod(int(address), 1 << 64)
        numbers = self.addresses.number(np.array([high], np.uint64), np.array([low], np.uint64))
        return FAMILY_6 | int(numbers[0])

    def keep(self, packets: Packets, good: NDArray[np.bool_], reason: str) -> Packets:
        """The good ones; the others are counted under the reason."""
        if good.all():
            return packets
        self.skipped[reason] += int(np.count_nonzero(~good))
        return packets.select(good)

    def _with(self, packets: Packets, length: int) -> Packets:
        """Those with so many captured bytes of the next header."""
        return self.keep(packets, packets.at + length <= packets.end, CUT)

    def _frames(self, octets: Octets, packets: Packets, link: int, *, inside: bool) -> Packets:
        """The TCP segments in frames of one link type; ``inside`` a tunnel no further tunnel is looked for."""
        if link in ETHERTYPE_LINKS:
            header, field = ETHERTYPE_LINKS[link]
            packets = self._with(packets, header)
            kinds = octets.u16[packets.at + field].astype(np.int64)
            packets, kinds = self._untagged(octets, replace(packets, at=packets.at + header), kinds)
        elif link in RAW_LINKS:
            packets = self._with(packets, 1)
            kinds = _kind_by_version(octets, packets.at)
        elif link in (NULL, LOOP):
            packets = self._with(packets, 4)
            family = octets.u32[packets.at].astype(np.int64)
            # The family is in the byte order of the machine that captured: small in one reading, huge in the other.
            family = np.where(family > 0xFFFF, octets.u32_little[packets.at], family)
            kinds = np.where(family == 2, IPV4, np.where(np.isin(family, FAMILIES_6), IPV6, 0))
            packets = replace(packets, at=packets.at + 4)
        else:
            self.skipped[UNKNOWN_LINK] += len(packets)
            self.unknown_links.add(link)
            return packets.select(np.zeros(len(packets), np.bool_))

        fours = kinds == IPV4
        if fours.all():
            return self._ipv4(octets, packets, inside=inside)
        sixes = kinds == IPV6
        self.skipped[NOT_IP] += int(np.count_nonzero(~(fours | sixes)))
        found = self._ipv4(octets, packets.select(fours), inside=inside)
        if sixes.any():
            found = found.joined(self._ipv6(octets, packets.select(sixes), inside=inside))
        return found

    def _untagged(
        self, octets: Octets, packets: Packets, kinds: NDArray[np.int64]
    ) -> tuple[Packets, NDArray[np.int64]]:
        for _ in range(MOST_TAGS):
            tagged = (kinds == VLAN_TAGS[0]) | (kinds == VLAN_TAGS[1]) | (kinds == VLAN_TAGS[2])
            if not tagged.any():
                break
            whole = ~tagged | (packets.at + 4 <= packets.end)
            packets = self.keep(packets, whole, CUT)
            kinds, tagged = kinds[whole], tagged[whole]
            kinds[tagged] = octets.u16[packets.at[tagged] + 2]
            packets = replace(packets, at=packets.at + 4 * tagged)
        return packets, kinds

    def _ipv4(self, octets: Octets, packets: Packets, *, inside: bool) -> Packets:
        """RFC 791 section 3.1. A total length of 0 is that of a segment which the network card was to cut up."""
        packets = self._with(packets, 20)
        headers = octets.rows(packets.at, 20)
        version, header = headers[:, 0] >> 4, (headers[:, 0] & 15).astype(np.int64) * 4
        total = column(headers, 2, ">u2").astype(np.int64)
        total = np.where(total == 0, packets.wire_end - packets.at, total)
        packets = replace(
            packets,
            at=packets.at + header,
            wire_end=packets.at + total,
            source=column(headers, 12, ">u4").astype(np.uint64),
            destination=column(headers, 16, ">u4").astype(np.uint64),
        )
        good = (version == 4) & (header >= 20) & (total >= header)
        first = (column(headers, 6, ">u2") & 0x1FFF) == 0
        protocol = headers[:, 9]
        if not (good & first).all():
            packets = self.keep(packets, good, BAD)
            first, protocol = first[good], protocol[good]
            packets, protocol = self.keep(packets, first, FRAGMENT), protocol[first]
        return self._transport(octets, packets, protocol, inside=inside)

    def _ipv6(self, octets: Octets, packets: Packets, *, inside: bool) -> Packets:
        """RFC 8200 section 3. A payload length of 0 is that of a jumbogram (RFC 2675) or a large offloaded segment."""
        packets = self._with(packets, 40)
        headers = octets.rows(packets.at, 40)
        length = column(headers, 4, ">u2").astype(np.int64)
        wire_end = np.where(length == 0, packets.wire_end, packets.at + 40 + length)
        halves = [column(headers, offset, ">u8").astype(np.uint64) for offset in (8, 16, 24, 32)]
        packets = replace(packets, at=packets.at + 40, wire_end=wire_end)
        good = (headers[:, 0] >> 4) == 6
        protocol = headers[:, 6]
        packets, protocol, halves = (
            self.keep(packets, good, BAD),
            protocol[good],
            [half[good] for half in halves],
        )
        source, destination = (
            self.addresses.number(*halves[end : end + 2]).astype(np.uint64) | np.uint64(FAMILY_6)
            for end in (0, 2)
        )
        packets, protocol = self._unwrapped(
            octets, replace(packets, source=source, destination=destination), protocol
        )
        return self._transport(octets, packets, protocol, inside=inside)

    def _unwrapped(
        self, octets: Octets, packets: Packets, protocol: NDArray[np.uint8]
    ) -> tuple[Packets, NDArray[np.uint8]]:
        """Past the extension headers (RFC 8200 section 4, RFC 4302 section 2.2)."""
        for _ in range(MOST_EXTENSIONS):
            wrapped = np.isin(
                protocol, (HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, AUTHENTICATION, DESTINATION, MOBILITY)
            )
            if not wrapped.any():
                break
            whole = ~wrapped | (packets.at + 8 <= packets.end)
            packets, protocol, wrapped = self.keep(packets, whole, CUT), protocol[whole], wrapped[whole]
            head = octets.rows(packets.at, 8)
            fragmented = protocol == FRAGMENT_HEADER
            later = fragmented & (column(head, 2, ">u2") >> 3 != 0)
            size = head[:, 1].astype(np.int64)
            length = np.where(protocol == AUTHENTICATION, size * 4 + 8, size * 8 + 8)
            length = np.where(fragmented, 8, length)
            protocol = np.where(wrapped, head[:, 0], protocol)
            packets = replace(packets, at=packets.at + np.where(wrapped, length, 0))
            packets, protocol = self.keep(packets, ~later, FRAGMENT), protocol[~later]
        return packets, protocol

    def _transport(
        self, octets: Octets, packets: Packets, protocol: NDArray[np.uint8], *, inside: bool
    ) -> Packets:
        segments = protocol == TCP
        if segments.all():
            return packets
        found = packets.select(segments)
        others = packets.select(~segments)
        if inside:
            self.skipped[NOT_TCP] += len(others)
            return found
        datagrams = (protocol[~segments] == UDP) & (others.at + 8 + VXLAN_HEADER <= others.end)
        tunnelled = datagrams.copy()
        tunnelled[datagrams] = octets.u16[others.at[datagrams] + 2] == (self._vxlan or VXLAN_PORT)
        if self._vxlan is None:
            self.skipped[NOT_TCP] += len(others)
            self.passed_tunnels += int(np.count_nonzero(tunnelled))
            return found
        inner = self.keep(others, tunnelled, NOT_TCP)
        if not len(inner):
            return found
        return found.joined(self._tunnelled(octets, inner))

    def _tunnelled(self, octets: Octets, packets: Packets) -> Packets:
        """The segments inside VXLAN packets (RFC 7348 section 5), whose UDP header is at ``at``."""
        network = octets.u32[packets.at + 8 + 4].astype(np.uint64) >> np.uint64(8)
        inner = replace(packets, at=packets.at + 8 + VXLAN_HEADER, tunnel=network + np.uint64(1))
        return self._frames(octets, inner, ETHERNET, inside=True)


def _kind_by_version(octets: Octets, at: Positions) -> NDArray[np.int64]:
    version = octets.raw[at] >> 4
    return np.where(version == 4, IPV4, np.where(version == 6, IPV6, 0))
