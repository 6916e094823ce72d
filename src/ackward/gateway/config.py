"""What a gateway is told: ``gateway.toml``, checked field by field.

The schema is the classes below and those of ``tuning``; docs/gateway.md explains it by example. Everything that names
a file or a host is only read here; keys are read by :func:`load_keys`, names are resolved by ``names``. Unknown fields
are errors.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)

from ackward.errors import UsageError
from ackward.gateway.allow import AllowList, read_ports, read_rule
from ackward.gateway.complaints import complaints, differences
from ackward.gateway.keys import Key, read_key
from ackward.gateway.settings import Settings
from ackward.gateway.targets import MOST_TARGETS, MOST_WORKERS
from ackward.gateway.tuning import Buffers, Limits, Part, PoolSize, Steps

#: A configuration is written by hand.
_LONGEST_FILE = 1 << 20
#: The defaults.
_USUAL = Settings()


class Endpoint(BaseModel):
    """``HOST:PORT``: an address (IPv6 in brackets) or, for something to connect to, a name."""

    model_config = ConfigDict(frozen=True)
    host: str
    port: int

    def __str__(self) -> str:
        """As it is written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether the host needs no DNS."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True


def read_endpoint(text: object) -> object:
    """``HOST:PORT`` as the fields of an :class:`Endpoint`; raises ValueError in words."""
    if not isinstance(text, str):
        return text
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError(f"{text!r} is no HOST:PORT, such as 10.0.0.1:443 or [fd00::1]:443")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{port!r} is no port between 1 and 65535")
    if (
        len(host) > 253
        or not all(letter.isalnum() or letter in "-.:_" for letter in host)
        or not host.isascii()
    ):
        raise ValueError(f"{host!r} is no address and no host name")
    return {"host": host, "port": int(port)}


def _no_name(endpoint: Endpoint) -> Endpoint:
    if not endpoint.is_address:
        raise ValueError(f"{endpoint.host!r} is no address: listen on an address, such as 0.0.0.0 or [::]")
    return endpoint


def _ports(text: object) -> range:
    return read_ports(str(text))


def _allow(rules: object) -> AllowList:
    if isinstance(rules, AllowList):
        return rules
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise ValueError('a list such as ["10.1.0.0/16:443"] is due')
    return AllowList(tuple(map(read_rule, rules)))


def _network(text: str) -> str:
    return str(ip_network(text))


Remote = Annotated[Endpoint, BeforeValidator(read_endpoint)]
Local = Annotated[Endpoint, BeforeValidator(read_endpoint), AfterValidator(_no_name)]
Ports = Annotated[range, BeforeValidator(_ports)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Interface = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.@-]{1,15}$")]  # IFNAMSIZ
Congestion = Annotated[str, Field(pattern=r"^[a-z0-9_]{0,15}$")]  # TCP_CA_NAME_MAX; empty: the host's own
Network = Annotated[str, AfterValidator(_network)]
SegmentSize = Annotated[int, Field(ge=88, le=32767)]  # TCP_MIN_MSS and MAX_TCP_WINDOW, include/net/tcp.h


class _Legs(Part):
    """How legs are made, at either end; ``mss``: bytes that a segment carries at most, in both directions."""

    congestion: Congestion = ""
    mptcp: StrictBool = False
    mss: SegmentSize | None = None

    @model_validator(mode="after")
    def _one_path(self) -> _Legs:
        if self.mss and self.mptcp:
            raise ValueError("mss is for one path, and mptcp has several: give a route to each its advmss")
        return self


class Peer(_Legs):
    """Another gateway. ``address`` is where to connect to it, ``allow`` where it may connect to through this one.

    ``keys`` are files: the first is used for connecting, every one is accepted.
    """

    keys: tuple[Path, ...] = Field(min_length=1)
    address: Remote | None = None
    allow: Annotated[AllowList, BeforeValidator(_allow)] = AllowList()
    pool: PoolSize = PoolSize()


class Listen(Part):
    """Where clients connect: a fixed port (``address``, ``target``), or a whole network (``transparent``).

    ``via`` is the peer; without it the gateway connects to the destination itself (one gateway alone). ``answer``:
    ``optimistic`` connects the client at once, ``faithful`` once the server has answered. A transparent listener
    takes what comes in at ``interface`` for ``ports`` of the network; with ``keep_client`` the server sees the
    client's address. ``returns`` is for ``keep_client`` without ``via``, and the same as that of :class:`Exit`.
    """

    name: Name | None = None
    address: Local | None = None
    target: Remote | None = None
    transparent: IPv4Network | IPv6Network | None = None
    interface: Interface | None = None
    ports: tuple[Ports, ...] = (range(1, 65536),)
    keep_client: StrictBool = False
    returns: Mapping[Network, Interface] = Field(default_factory=dict)
    via: Name | None = None
    answer: Literal["optimistic", "faithful"] = "optimistic"

    @model_validator(mode="after")
    def _one_kind(self) -> Listen:
        if bool(self.address) == bool(self.transparent):
            raise ValueError("give either address and target, or transparent and interface")
        if bool(self.address) != bool(self.target):
            raise ValueError("address needs a target, and transparent has none: the destination is kept")
        if bool(self.transparent) != bool(self.interface):
            raise ValueError("transparent needs the interface where clients come in, and address has none")
        if self.address and (self.keep_client or "ports" in self.model_fields_set):
            raise ValueError("keep_client and ports belong to transparent")
        if bool(self.returns) != (self.keep_client and not self.via):
            raise ValueError(
                "returns belongs to keep_client, where the clients' addresses are used: here without via, "
                "in the peer's [exit] with it"
            )
        return self


class Exit(_Legs):
    """Where other gateways connect: their legs end here.

    ``networks`` are where they connect from: from elsewhere nobody may (empty: from anywhere), and the routes there get
    the initial window. ``returns`` lets a peer ask for connections from its clients' own addresses: for each network
    of clients, the interface where answers come in.
    """

    address: Local
    networks: tuple[Network, ...] = ()
    returns: Mapping[Network, Interface] = Field(default_factory=dict)


class Metrics(Part):
    """Where Prometheus asks; by default nowhere."""

    address: Local


class Gateway(Part):
    """A whole configuration."""

    name: Name = "gateway"
    workers: int = Field(_USUAL.workers, ge=1, le=MOST_WORKERS)
    steps: Steps = Steps()
    initial_window: int = Field(_USUAL.segments, ge=1, le=1000)  # segments, of legs with the step window
    buffers: Buffers = Buffers()
    listen: tuple[Listen, ...] = ()
    exit: Exit | None = None
    peers: Mapping[Name, Peer] = Field(default_factory=dict, alias="peer")
    limits: Limits = Limits()
    metrics: Metrics | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Gateway:
        if misfits := list(_misfits(self)):
            raise ValueError("\n  ".join(misfits))
        return self


def _misfits(gateway: Gateway) -> Iterator[str]:
    """What is good by itself and does not fit together, each with its field."""
    if not gateway.listen and gateway.exit is None:
        yield "nothing to do: give a [[listen]] (entry) or an [exit], or both"
    for number, listen in enumerate(gateway.listen):
        if listen.via is not None and (
            listen.via not in gateway.peers or not gateway.peers[listen.via].address
        ):
            yield f"listen.{number}.via: there is no [peer.{listen.via}] with an address"
    yield from _clashes(gateway)
    yield from _shared_networks(gateway)
    ranges = sum(1 if listen.address else len(listen.ports) for listen in gateway.listen)
    if ranges > MOST_TARGETS:
        yield (
            f"listen: {ranges} listeners and ranges of ports are more than the {MOST_TARGETS} that the kernel is told "
            "of: join ranges, or run a second gateway"
        )
    if gateway.exit and not gateway.peers:
        yield "exit: without a [peer.NAME] with keys nobody may connect"
    if gateway.exit and gateway.steps.window and not gateway.exit.networks:
        yield "exit.networks: say where the entries connect from, or set steps.window = false"


def _clashes(gateway: Gateway) -> Iterator[str]:
    """Addresses that overlap: ports are shared (SO_REUSEPORT), so the kernel would let both have what comes."""
    places = [(f"listen.{number}", listen.address) for number, listen in enumerate(gateway.listen)]
    places += [("exit", gateway.exit.address if gateway.exit else None)]
    places += [("metrics", gateway.metrics.address if gateway.metrics else None)]
    seen: list[tuple[str, Endpoint]] = []
    for part, place in places:
        if place is None:
            continue
        for other, earlier in seen:
            if _overlap(place, earlier):
                yield f"{part}.address: {place} is taken already, by {other}.address ({earlier})"
        seen.append((part, place))


def _shared_networks(gateway: Gateway) -> Iterator[str]:
    """Transparent listeners that one connection may be for: the kernel would give it to the first of them."""
    places = [(f"listen.{number}", listen) for number, listen in enumerate(gateway.listen)]
    for (earlier, one), (part, other) in combinations(places, 2):
        if (
            one.transparent
            and other.transparent
            and one.interface == other.interface
            and one.transparent.overlaps(other.transparent)
            and any(max(a[0], b[0]) <= min(a[-1], b[-1]) for a, b in product(one.ports, other.ports))
        ):
            yield (
                f"{part}.transparent: {other.transparent} at {other.interface} overlaps {earlier}.transparent "
                f"({one.transparent}): divide the networks, or the ports"
            )


def _overlap(one: Endpoint, other: Endpoint) -> bool:
    """Whether a connection may be for both. A listener on [::] takes no IPv4 here (IPV6_V6ONLY)."""
    first, second = ip_address(one.host), ip_address(other.host)
    return (
        one.port == other.port
        and first.version == second.version
        and (first == second or first.is_unspecified or second.is_unspecified)
    )


def load(path: Path) -> Gateway:
    """Read and check a configuration; raises :class:`UsageError` that names every wrong field with its path.

    What does not fit together is named once each field by itself is good.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}",
            consequence="nothing was changed",
            next_step="docs/gateway.md shows a configuration",
        ) from error
    if len(text) > _LONGEST_FILE:
        raise UsageError(
            f"{path} is longer than 1 MiB",
            consequence="nothing was changed",
            next_step="name a gateway.toml: docs/gateway.md shows one",
        )
    try:
        given = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is no TOML: {error}",
            consequence="nothing was changed",
            next_step="docs/gateway.md shows a configuration",
        ) from error
    return check(given, path)


def check(given: Mapping[str, object], path: Path) -> Gateway:
    """The configuration in these tables; ``path`` is for messages, and relative key files are looked up beside it."""
    try:
        gateway = Gateway.model_validate(given)
    except ValidationError as error:
        wrong = complaints(error, Gateway)
        raise UsageError(
            f"{path}: {wrong[0]}" if len(wrong) == 1 else "\n  ".join([f"{path}:", *wrong]),
            consequence="nothing was changed",
            next_step="docs/gateway.md lists every field",
        ) from error
    peers = {
        name: peer.model_copy(update={"keys": tuple(path.parent / key for key in peer.keys)})
        for name, peer in gateway.peers.items()
    }
    return gateway.model_copy(update={"peers": peers})


def load_keys(gateway: Gateway) -> dict[str, tuple[Key, ...]]:
    """Every peer's keys, read now; raises :class:`UsageError`, also where two peers share a key."""
    owners: dict[bytes, str] = {}
    keys: dict[str, tuple[Key, ...]] = {}
    for name, peer in gateway.peers.items():
        keys[name] = tuple(map(read_key, peer.keys))
        for key in keys[name]:
            if owners.setdefault(key.identity, name) != name:
                raise UsageError(
                    f"peer.{name}.keys: {key.path} holds the key of peer.{owners[key.identity]}",
                    consequence="this gateway could not tell them apart",
                    next_step="a key for each peer: `ackward gateway key FILE`",
                )
    return keys


def with_new_keys(old: Gateway, new: Gateway) -> tuple[Gateway, list[str]]:
    """``old`` with the key files of ``new``, and the paths of other fields that ``new`` has otherwise."""
    peers = {
        name: peer.model_copy(update={"keys": new.peers[name].keys}) if name in new.peers else peer
        for name, peer in old.peers.items()
    }
    changed = old.model_copy(update={"peers": peers})
    return changed, list(differences(changed, new))
