"""Which connections are asked for: by port, by address, or by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ackward.capture.headers import Layers
from ackward.errors import UsageError
from ackward.model.segments import Endpoint

#: An endpoint's code: the port in 16 bits, the address's code in 33 above it, part of the tunnel in 15 above that.
ADDRESS_SHIFT, TUNNEL_SHIFT, TUNNEL_BITS = 16, 49, 13

#: Ends that are kept in mind until something is found that was asked for: a client has as many as it has ports.
MOST_ENDS = 1 << 16

Codes = NDArray[np.uint64]

_END = r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})"
_FLOW = re.compile(f"{_END}(?:-{_END})?")


class Passed:
    """The ends of segments that were not asked for, counted until there is one that was."""

    def __init__(self) -> None:
        self._segments: Counter[int] = Counter()
        self._found = False

    def watch(self, asked: NDArray[np.bool_], *ends: Codes) -> None:
        """The next segments, by the codes of both ends."""
        self._found = self._found or bool(asked.any())
        if self._found:
            self._segments.clear()
            return
        codes, counts = np.unique(np.concatenate(ends), return_counts=True)
        self._segments.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
        if len(self._segments) > MOST_ENDS:
            self._segments = Counter(dict(self._segments.most_common(MOST_ENDS // 2)))

    def busiest(self, layers: Layers, most: int) -> list[tuple[Endpoint, int]]:
        """Those of most segments; of two alike the one with the lower port, which is more often the server's."""
        port = (1 << ADDRESS_SHIFT) - 1
        ranked = sorted(self._segments.items(), key=lambda item: (-item[1], item[0] & port, item[0]))
        return [
            (Endpoint(layers.address_of(code >> ADDRESS_SHIFT), code & port), count)
            for code, count in ranked[:most]
        ]


@dataclass(frozen=True)
class Selection:
    """Connections with this ``port`` and this ``host`` at either end, and one of ``flows`` if there are any.

    A flow is named by one of its ends or by both, in any order.
    """

    port: int | None = None
    host: IPv4Address | IPv6Address | None = None
    flows: tuple[tuple[Endpoint, ...], ...] = ()
    _passed: Passed = field(default_factory=Passed, init=False, repr=False, compare=False)

    @classmethod
    def asked(cls, port: int | None, host: str | None, flow: str | Sequence[str] | None) -> Self:
        """What was written on a command line. Raises :class:`UsageError` that says what it should look like."""
        try:
            address = None if host is None else ip_address(host)
        except ValueError as error:
            raise UsageError(
                f"{host!r} is not an IP address",
                consequence="nothing was read",
                next_step="give the address of one end",
            ) from error
        texts = [flow] if isinstance(flow, str) else flow or ()
        return cls(port, address, tuple(_ends(text) for text in texts))

    def holds(self, source: Codes, destination: Codes, layers: Layers) -> NDArray[np.bool_] | None:
        """Of which segments between these ends it holds; None for all. Tunnels make no difference."""
        if self.port is None and self.host is None and not self.flows:
            return None
        ends = [codes & np.uint64((1 << TUNNEL_SHIFT) - 1) for codes in (source, destination)]
        good = np.ones(len(source), np.bool_)
        if self.port is not None:
            good &= _either(self.port, *(end & np.uint64((1 << ADDRESS_SHIFT) - 1) for end in ends))
        if self.host is not None:
            good &= _either(layers.code_of(self.host), *(end >> np.uint64(ADDRESS_SHIFT) for end in ends))
        if self.flows:
            named = np.zeros(len(source), np.bool_)
            for flow in self.flows:
                first, *other = (layers.code_of(end.address) << ADDRESS_SHIFT | end.port for end in flow)
                if other:
                    named |= (ends[0] == first) & (ends[1] == other[0])
                    named |= (ends[1] == first) & (ends[0] == other[0])
                else:
                    named |= _either(first, *ends)
            good &= named
        self._passed.watch(good, *ends)
        return good

    def instead(self, layers: Layers, most: int) -> list[tuple[Endpoint, int]]:
        """The busiest ends with their segments if nothing that was seen was asked for; else none."""
        return self._passed.busiest(layers, most)


def _either(wanted: int, source: Codes, destination: Codes) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (source == wanted) | (destination == wanted)
    return found


def _ends(text: str) -> tuple[Endpoint, ...]:
    """The end, or both ends, that name a flow."""
    found = _FLOW.fullmatch(text.strip())
    parts = found.groups() if found else ()
    try:
        ends = tuple(_end(*parts[at : at + 3]) for at in (0, 3)[: len(parts)] if parts[at + 2])
    except ValueError:
        ends = ()
    if not ends:
        raise UsageError(
            f"{text!r} names no flow",
            consequence="nothing was read",
            next_step="write ADDRESS:PORT for one end, or both ends with a dash between them: 10.0.0.1:5432, "
            "10.0.0.1:40001-10.0.0.2:5432, [::1]:80",
        )
    return ends


def _end(six: str | None, four: str | None, port: str) -> Endpoint:
    if int(port) > 0xFFFF:
        raise ValueError(port)
    return Endpoint(IPv6Address(six) if six else IPv4Address(four or ""), int(port))
