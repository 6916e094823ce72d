"""Where an exit may connect to: networks and ports, everything else denied. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from ackward.gateway.protocol_messages import Address

_ALL_PORTS = range(1, 65536)


@dataclass(frozen=True, slots=True)
class Rule:
    """One network and a range of ports."""

    network: IPv4Network | IPv6Network
    ports: range

    def __str__(self) -> str:
        """As it stands in a configuration."""
        shown = f"[{self.network}]" if self.network.version == 6 else str(self.network)
        if self.ports == _ALL_PORTS:
            return f"{shown}:*"
        first, last = self.ports[0], self.ports[-1]
        return f"{shown}:{first}" if first == last else f"{shown}:{first}-{last}"


@dataclass(frozen=True, slots=True)
class AllowList:
    """Destinations that are allowed. An empty list allows nothing."""

    rules: tuple[Rule, ...] = ()

    def permits(self, address: Address, port: int) -> bool:
        """Whether a connection there is allowed. ``address`` is no IPv4-mapped one: the protocol unwraps these."""
        return any(
            port in rule.ports and address.version == rule.network.version and address in rule.network
            for rule in self.rules
        )


def read_rule(text: str) -> Rule:
    """``CIDR:PORT``, ``CIDR:PORT-PORT`` or ``CIDR:*``, an IPv6 network in brackets; raises ValueError in words."""
    place, colon, ports = text.rpartition(":")
    if not colon or (":" in place and not (place.startswith("[") and place.endswith("]"))):
        raise ValueError(
            f"{text!r} is no CIDR:PORT, such as 10.1.0.0/16:443, 10.1.2.3:8000-8099 or [fd00::/8]:*"
        )
    try:
        network = ip_network(place.removeprefix("[").removesuffix("]"))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError(f"{text!r}: write an IPv4 network as such")
    return Rule(network, read_ports(ports))


def read_ports(text: str) -> range:
    """``PORT``, ``PORT-PORT`` or ``*``; raises ValueError in words."""
    if text == "*":
        return _ALL_PORTS
    first, dash, last = text.partition("-")
    if not (first.isascii() and first.isdigit()) or (dash and not (last.isascii() and last.isdigit())):
        raise ValueError(f"{text!r} is no port, no range such as 8000-8099, and not *")
    ports = range(int(first), int(last or first) + 1)
    if not ports or ports[0] not in _ALL_PORTS or ports[-1] not in _ALL_PORTS:
        raise ValueError(f"{text!r} is no range of ports between 1 and 65535")
    return ports
