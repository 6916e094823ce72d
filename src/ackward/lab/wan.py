"""What a long link does to segments: delay, a rate, and losses that are the same in every run.

Standard library only, and no effects: ``delay_line.py`` carries it out.
"""

from __future__ import annotations

import json
import random
import struct
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10  # RFC 9293, section 3.1
_TCP = 6
_NO_OPERATION, _SACK = 1, 5  # TCP options: RFC 9293 section 3.1, RFC 2018 section 3


@dataclass(frozen=True)
class Loss:
    """Which segments of one direction are lost.

    ``what`` is ``data`` (segments that touch the stream's bytes ``at`` to ``at + length``, and the same again after
    each ``period`` bytes, if any), ``syn``, or ``any`` (each segment with ``probability``, drawn with ``seed``).
    ``times`` is how many transmissions of each such segment are lost. Of ``every`` connections only the last is harmed.
    """

    what: Literal["data", "syn", "any"]
    at: int = 0
    length: int = 1
    period: int = 0
    times: int = 1
    every: int = 1
    probability: float = 0.0
    seed: int = 1


@dataclass(frozen=True)
class Line:
    """One direction of a link.

    ``delay`` in milliseconds, ``rate`` in Mbit/s (None: as fast as the machine). Of ``thin`` pure ACKs in a row only
    the newest is forwarded, and it waits for the others at most ``thin_hold`` milliseconds. The handshake's,
    and those that tell of duplicates and holes by a SACK block, pass at once (RFC 5681 section 4.2). With
    ``thin_size`` an ACK counts once for each segment of that many bytes that it acknowledges.
    """

    delay: float = 0.0
    rate: float | None = None
    losses: tuple[Loss, ...] = ()
    thin: int = 1
    thin_hold: float = 0.0
    thin_size: int = 0


@dataclass(frozen=True)
class Wan:
    """A link between two hosts, both directions."""

    to_server: Line = field(default_factory=Line)
    to_client: Line = field(default_factory=Line)

    @classmethod
    def of(cls, delay: float) -> Wan:
        """A link with ``delay`` milliseconds each way that harms nothing."""
        return cls(Line(delay), Line(delay))

    def unharmed(self) -> Wan:
        """The same link without losses and without thinning."""
        return Wan(*(replace(line, losses=(), thin=1) for line in (self.to_server, self.to_client)))

    def to_json(self) -> str:
        """For the command line of the delay line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Wan:
        """The inverse of :meth:`to_json`."""
        given = json.loads(text)
        return cls(**{name: _line(given[name]) for name in ("to_server", "to_client")})


def _line(given: dict[str, Any]) -> Line:
    losses = tuple(Loss(**loss) for loss in given.pop("losses"))
    return Line(losses=losses, **given)


@dataclass(frozen=True)
class Packet:
    """What the link reads of a TCP segment. ``connection`` is its addresses and ports, as on the wire."""

    connection: bytes
    seq: int
    ack: int
    flags: int
    length: int
    options: bytes = b""

    @property
    def is_pure_ack(self) -> bool:
        """Whether it carries nothing but acknowledgements."""
        return self.length == 0 and not self.flags & (FIN | SYN | RST)

    @property
    def sacks(self) -> bool:
        """Whether it has a SACK block, so tells of a hole or of a duplicate (RFC 2018, RFC 2883)."""
        left = self.options
        while left and left[0] != _SACK:
            length = 1 if left[0] == _NO_OPERATION else left[1] if len(left) > 1 else 0
            left = left[length:] if length and left[0] else b""
        return bool(left)


def read(packet: bytes) -> Packet | None:
    """The TCP segment in an IP packet whose tail may be cut off; None for anything else, fragments included."""
    version = packet[0] >> 4 if packet else 0
    try:
        if version == 4:
            (total,) = struct.unpack_from("!H", packet, 2)
            start, protocol, addresses = (packet[0] & 15) * 4, packet[9], packet[12:20]
        elif version == 6:
            (payload,) = struct.unpack_from("!H", packet, 4)
            start, protocol, addresses, total = 40, packet[6], packet[8:40], payload + 40
        else:
            return None
        if protocol != _TCP:
            return None
        seq, ack = struct.unpack_from("!II", packet, start + 4)
        header, flags = (packet[start + 12] >> 4) * 4, packet[start + 13]
    except (struct.error, IndexError):
        return None
    options = packet[start + 20 : start + header]
    return Packet(addresses + packet[start : start + 4], seq, ack, flags, total - start - header, options)


class Losses:
    """Decides, segment by segment in the order of arrival, what one direction loses."""

    def __init__(self, losses: tuple[Loss, ...]) -> None:
        self._rules = [(loss, random.Random(loss.seed)) for loss in losses]  # noqa: S311 - repeatable on purpose
        self._isn: dict[bytes, int] = {}
        self._number: dict[bytes, int] = {}
        self._lost: dict[tuple[int, bytes, int], int] = {}

    def take(self, packet: Packet) -> bool:
        """Whether this segment is lost."""
        key = packet.connection
        if packet.flags & SYN and self._isn.get(key) != packet.seq:
            self._isn[key] = packet.seq
            self._number[key] = len(self._number)
        # All of them, even after the first that takes it: every rule has to see every segment.
        verdicts = [self._takes(rule, packet) for rule in range(len(self._rules))]
        return any(verdicts)

    def _takes(self, rule: int, packet: Packet) -> bool:
        loss, chance = self._rules[rule]
        if loss.what == "any":
            return chance.random() < loss.probability
        key = packet.connection
        if self._number.get(key, -1) % loss.every != loss.every - 1:
            return False
        hit = packet.flags & SYN if loss.what == "syn" else packet.length and self._touches(loss, packet)
        if not hit:
            return False
        spot = (rule, key, packet.seq)
        self._lost[spot] = self._lost.get(spot, 0) + 1
        return self._lost[spot] <= loss.times

    def _touches(self, loss: Loss, packet: Packet) -> bool:
        """Whether the segment holds a byte of the lost stretch, or of one of its repetitions."""
        if packet.connection not in self._isn:
            return False  # the connection is older than the link: its offsets are not known
        first = (packet.seq - self._isn[packet.connection] - 1) & 0xFFFFFFFF
        last = first + packet.length - 1
        if loss.period:
            # The last repetition that begins at or before the segment's end.
            repetition = max(0, (last - loss.at) // loss.period)
            low = loss.at + repetition * loss.period
        else:
            low = loss.at
        return first < low + loss.length and last >= low
