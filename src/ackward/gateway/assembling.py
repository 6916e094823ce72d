"""From a checked configuration, its keys and resolved names to what the workers are told. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ackward.gateway.config import Endpoint, Gateway, Listen, Peer
from ackward.gateway.keys import Key
from ackward.gateway.responder import Known
from ackward.gateway.settings import (
    Address,
    ExitSettings,
    FixedListener,
    Limits,
    Listener,
    PeerSettings,
    Settings,
    TransparentListener,
)

Keys = Mapping[str, tuple[Key, ...]]
#: What each ``HOST:PORT`` of the configuration stands for now; None: its name has never been resolved.
Resolved = Mapping[Endpoint, Address | None]


def to_resolve(gateway: Gateway) -> Iterator[tuple[str, Endpoint]]:
    """Every place that is connected to, with the field that names it."""
    for number, listen in enumerate(gateway.listen):
        if listen.target:
            yield f"listen.{number}.target", listen.target
    for name, peer in gateway.peers.items():
        if peer.address:
            yield f"peer.{name}.address", peer.address


def accepted(keys: Keys) -> dict[bytes, Known]:
    """What a :class:`~ackward.gateway.protocol.Door` accepts: all keys of all peers."""
    return {key.identity: Known(key.secret, peer) for peer, several in keys.items() for key in several}


def listener_name(number: int, listen: Listen) -> str:
    """A listener's name in logs and metrics: its own, or where it listens."""
    return listen.name or str(listen.address or listen.transparent or number)


def assemble(gateway: Gateway, keys: Keys, resolved: Resolved) -> Settings:
    """The workers' settings. Every peer's address must have been resolved."""
    return Settings(
        listeners=tuple(_listener(number, listen, resolved) for number, listen in enumerate(gateway.listen)),
        peers=tuple(
            _peer(name, peer, keys[name], resolved) for name, peer in gateway.peers.items() if peer.address
        ),
        exits=_exits(gateway, keys),
        steps=gateway.steps,
        buffers=gateway.buffers,
        limits=Limits(**gateway.limits.model_dump()),
        workers=gateway.workers,
        segments=gateway.initial_window,
    )


def _listener(number: int, listen: Listen, resolved: Resolved) -> Listener:
    name, faithful = listener_name(number, listen), listen.answer == "faithful"
    if listen.address and listen.target:
        return FixedListener(
            name=name,
            bind=(listen.address.host, listen.address.port),
            destination=resolved[listen.target],
            peer=listen.via or "",
            faithful=faithful,
        )
    assert listen.transparent is not None
    assert listen.interface is not None
    return TransparentListener(
        name=name,
        network=str(listen.transparent),
        interface=listen.interface,
        ports=tuple((ports[0], ports[-1]) for ports in listen.ports),
        peer=listen.via or "",
        faithful=faithful,
        keep_client=listen.keep_client,
        returns=tuple(listen.returns.items()),
    )


def _peer(name: str, peer: Peer, keys: tuple[Key, ...], resolved: Resolved) -> PeerSettings:
    assert peer.address is not None
    address = resolved[peer.address]
    assert address is not None
    return PeerSettings(
        name=name,
        address=address,
        key=keys[0].secret,
        pool=peer.pool,
        congestion=peer.congestion,
        mptcp=peer.mptcp,
        mss=peer.mss,
    )


def _exits(gateway: Gateway, keys: Keys) -> tuple[ExitSettings, ...]:
    if gateway.exit is None:
        return ()
    place = gateway.exit
    return (
        ExitSettings(
            bind=(place.address.host, place.address.port),
            keys=accepted(keys),
            networks=place.networks,
            congestion=place.congestion,
            mptcp=place.mptcp,
            mss=place.mss,
            returns=tuple(place.returns.items()),
        ),
    )
