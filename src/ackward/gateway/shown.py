"""What ``ackward gateway status`` says to people: the published report and what is beside it, as lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel

from ackward.model.gateway_status import GatewayStatus, ListenerStatus, PeerStatus, PoolStatus
from ackward.model.units import duration, plural, size

#: What each counter counts; ``{s}`` is gone where it is one.
_COUNTS: Final = {
    "accepted": "client{s} accepted",
    "connections": "connection{s} open",
    "early_begun": "connection{s} begun by a SYN",
    "early_claimed": "connection{s} begun by a SYN, client accepted",
    "early_refused": "SYN{s} beyond the limits of early",
    "early_pending": "connection{s} begun by a SYN, client not there yet",
    "held_syns": "SYN{s} held",
    "legs_begun": "leg{s} begun",
    "legs_ready": "leg{s} became ready",
    "legs_failed": "leg{s} failed",
    "legs_idle": "leg{s} idle",
    "legs_used": "leg{s} used",
    "pool_empty": "time{s} a leg was wanted and the pool was empty",
    "legs_accepted": "leg{s} accepted",
    "legs_rejected": "leg{s} rejected",
    "handshakes_dropped": "leg handshake{s} dropped",
    "pipes": "pipe{s} open",
    "pipes_not_empty": "pipe{s} came back with bytes",
    "busy": "client{s} turned away",
    "stuck": "connection{s} stuck",
    "went_on_in_fragments": "connection{s} went on in fragments",
    "workers_lost": "worker{s} lost",
}
_BYTES: Final = {
    "to_server": "to servers, by connections that have ended",
    "to_client": "to clients, by connections that have ended",
}
_ENDED: Final = "ended_"


class Draining(BaseModel):
    """Seconds that it has drained, and that are left at most."""

    since: float
    left: float


class Listening(BaseModel):
    """Where a listener listens, and its target, as both are configured."""

    place: str | None = None
    target: str | None = None


class Beside(BaseModel):
    """What a gateway says beside its published report. An older one says nothing: every field can be missing.

    ``listens`` is by the listener's number; ``lost`` is why a peer is not connected, by its name.
    """

    draining: Draining | None = None
    connections: int = 0
    listens: dict[int, Listening] = {}
    lost: dict[str, str] = {}


def lines(seen: GatewayStatus, beside: Beside) -> Iterator[str]:
    """One line for each thing."""
    steps = ", ".join(step for step, on in seen.steps.items() if on) or "none"
    yield f"{seen.name}: {_state(seen, beside)}, pid {seen.pid}; steps: {steps}"
    for number, listener in enumerate(seen.listeners):
        yield f"  listens   {_listener(listener, beside.listens.get(number, Listening()))}"
    if seen.exit:
        yield f"  exit      {seen.exit}"
    for peer in seen.peers:
        yield f"  peer      {peer.name} {_peer(seen, peer, beside)}"
    for notice in seen.notices:
        yield f"  notice    {notice}"
    for worker in seen.workers:
        for one in worker.stuck:
            yield (
                f"  stuck     {one.at[0]} port {one.at[1]}: segments of {one.segment} bytes not acknowledged "
                f"{one.timeouts} times in a row, for {one.seconds:.0f} s"
            )
    for name, count in seen.counters.items():
        if count:
            yield _count(name, count)


def _seconds(seconds: float) -> str:
    return duration(round(seconds * 1e9))


def _state(seen: GatewayStatus, beside: Beside) -> str:
    if beside.draining is None:
        return f"{seen.state}, up {_seconds(seen.seconds)}"
    return (
        f"draining for {_seconds(beside.draining.since)}, {plural(beside.connections, 'connection')} open, "
        f"ends in {_seconds(beside.draining.left)} at the latest; up {_seconds(seen.seconds)}"
    )


def _listener(listener: ListenerStatus, listening: Listening) -> str:
    place, target = listening.place, listening.target
    name = place or listener.name
    if listener.name not in name:  # it has a name of its own
        name = f"{listener.name} {name}"
    goal = listener.destination or target or "as asked"
    if target and target != goal:
        goal = f"{target} ({goal})"
    elif target and not listener.destination:
        goal = f"{target} (never resolved)"
    via = f" via {listener.peer}" if listener.peer else ""
    return f"{name} -> {goal}{via}, {listener.answer}"


def _peer(seen: GatewayStatus, peer: PeerStatus, beside: Beside) -> str:
    said = []
    if peer.address:
        said.append(_legs(seen, peer.name, beside))
    if seen.exit:
        said.append(f"may reach {', '.join(peer.allow) or 'nothing'}")
    return f"{peer.address or '(connects to us)'}: {'; '.join(said)}"


def _legs(seen: GatewayStatus, name: str, beside: Beside) -> str:
    pools: list[PoolStatus] = [worker.pools[name] for worker in seen.workers if name in worker.pools]
    if seen.state == "draining":
        return "no new legs, since this gateway drains"
    lost = [pool for pool in pools if not pool.connected]
    if lost:
        where = f" in {len(lost)} of {plural(len(pools), 'worker')}" if len(pools) > 1 else ""
        return f"NOT connected{where}: {beside.lost.get(name, 'no answer yet')}"
    idle, wanted = sum(pool.idle for pool in pools), sum(pool.wanted for pool in pools)
    legs = f"{idle} of {plural(wanted, 'leg')} idle" if idle <= wanted else f"{plural(idle, 'leg')} idle"
    unjoined = (
        ", legs cannot be joined there (several workers)" if any(not pool.joins for pool in pools) else ""
    )
    return f"connected, {legs}{unjoined}"


def _count(name: str, count: int) -> str:
    if name in _BYTES:
        return f"  {size(count):>12}  {_BYTES[name]}"
    if name.startswith(_ENDED):
        words = f"connection{{s}} ended: {name.removeprefix(_ENDED).replace('_', '-')}"
    else:
        words = _COUNTS.get(name, name.replace("_", " "))
    return f"  {count:>12,}  {words.replace('{s}', '' if count == 1 else 's')}"
