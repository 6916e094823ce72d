"""One worker: a process with a loop, made from the settings, until it is drained.

The supervisor's requests come over a socket, numbered, and each gets an answer of its number: ``drain``, ``stop``,
``status``, ``lost``, ``keys`` and ``resolved``; :meth:`Worker.answer` is the list.
"""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ackward.gateway.connection import Connection, Connections
from ackward.gateway.counters import Row
from ackward.gateway.early import Early, SynEvents
from ackward.gateway.exits import ExitDoor
from ackward.gateway.faithful import Holding
from ackward.gateway.legs import Pool
from ackward.gateway.listeners import Entrance
from ackward.gateway.loop import READ, Loop
from ackward.gateway.pipes import Pipes
from ackward.gateway.resources import Resources
from ackward.gateway.responder import Door
from ackward.gateway.settings import Address, Hooks, Settings
from ackward.gateway.sockets import Socket
from ackward.gateway.targets import targets_of
from ackward.gateway.unacknowledged import Unacknowledged
from ackward.gateway.upstream import Direct, Upstream

_LONGEST_REQUEST = 1 << 18
#: Connections that a status names: those that have lasted longest.
_NAMED = 100
#: How often a worker that drains looks whether it is done, in seconds.
_DRAIN_LOOK = 0.05
#: How often what was only counted is told, in seconds.
_RECOUNT = 60.0


@dataclass(frozen=True)
class Sockets:
    """What the supervisor opened for one worker: a listening socket for each listener and each exit."""

    entrances: list[Socket]
    exits: list[Socket]

    def close(self) -> None:
        """Close all of them."""
        for sock in (*self.entrances, *self.exits):
            sock.close()


@dataclass(frozen=True)
class Identity:
    """A worker's number, the cookie of its namespace, and the NFQUEUE that it serves, if it is the one to."""

    number: int
    netns: int
    queue: int | None


@dataclass
class Worker:
    """Everything of one worker."""

    settings: Settings
    hooks: Hooks
    sockets: Sockets
    counters: Row
    identity: Identity
    control: socket.socket
    loop: Loop = field(default_factory=Loop)

    def __post_init__(self) -> None:
        """Make all of it. Raises an error that names what is missing."""
        settings = self.settings
        self.draining = False
        self._retired_until = 0.0
        self.resources = Resources(
            settings, self.hooks, self.counters, self.loop, Pipes(settings.buffers.pipe)
        )
        self.connections = Connections(self.resources)
        self.pools = {peer.name: Pool(self.resources, peer) for peer in settings.peers}
        direct = Direct(self.resources)
        self.entrances = {
            number: Entrance(
                self.resources, self.connections, listener, sock, self._upstream(listener.peer, direct)
            )
            for number, (listener, sock) in enumerate(
                zip(settings.listeners, self.sockets.entrances, strict=True)
            )
        }
        self.doors = [
            ExitDoor(
                self.resources,
                self.connections,
                exit_,
                sock,
                # Another worker may accept the next leg: it would not know this one's sessions.
                Door(exit_.keys, joining=settings.workers == 1),
            )
            for exit_, sock in zip(settings.exits, self.sockets.exits, strict=True)
        ]
        self.begun: list[Early | Holding] = [*self._early(), *self._holding()]
        self.loop.add(self.control.fileno(), READ, self._requested)
        self.loop.after(_RECOUNT, self._recount)

    def _upstream(self, peer: str, direct: Direct) -> Upstream:
        return self.pools[peer] if peer else direct

    def _early(self) -> Iterator[Early]:
        """SYNs of optimistic listeners, if they are to begin connections."""
        settings, entrances = self.settings, self._doors(faithful=False)
        if not settings.steps.early or not entrances:
            return
        targets = targets_of(settings.listeners)
        events = SynEvents(
            targets, netns=self.identity.netns, worker=self.identity.number, workers=settings.workers
        )
        early = Early(self.resources, events, targets, entrances)
        for entrance in entrances.values():
            entrance.begun = early
        yield early

    def _holding(self) -> Iterator[Holding]:
        """SYNs of faithful listeners, in the one worker that serves their queue."""
        if self.identity.queue is None:
            return
        entrances = self._doors(faithful=True)
        targets = targets_of(self.settings.listeners)
        holding = Holding(self.resources, self.identity.queue, targets, entrances)
        for entrance in entrances.values():
            entrance.begun = holding
        yield holding

    def _doors(self, *, faithful: bool) -> dict[int, Entrance]:
        listeners = self.settings.listeners
        return {
            number: one for number, one in self.entrances.items() if listeners[number].faithful is faithful
        }

    def run(self) -> None:
        """Run until drained or stopped."""
        self.loop.run()
        self.close()

    def _recount(self) -> None:
        self.hooks.recount()
        self.loop.after(_RECOUNT, self._recount)

    def close(self) -> None:
        """End everything that is left; connections that are open get a reset."""
        self._close_doors()
        for door in self.doors:
            door.abandon()
        self.connections.abort_all()
        for pool in self.pools.values():
            pool.close()
        self.loop.close()
        self.resources.pipes.close()
        self.hooks.recount()

    def _close_doors(self) -> None:
        for door in (*self.entrances.values(), *self.doors):
            door.close()
        for begun in self.begun:
            begun.close()
        self.begun.clear()

    def drain(self) -> None:
        """Take nobody new; end when the last connection has ended."""
        if not self.draining:
            self.draining = True
            self._close_doors()
            for pool in self.pools.values():
                pool.close()
            for door in self.doors:
                door.retire()
            self._retired_until = self.loop.now + self.settings.limits.leg_handshake
            self._look_whether_done()

    def _look_whether_done(self) -> None:
        """An entry may have opened a leg before it heard that the leg is retired: that is still served."""
        legs = any(door.legs for door in self.doors) and self.loop.now < self._retired_until
        if self.connections or legs:
            self.loop.after(_DRAIN_LOOK, self._look_whether_done)
        else:
            self.loop.stop()

    def _requested(self, _: int) -> None:
        try:
            request = self.control.recv(_LONGEST_REQUEST)
        except BlockingIOError:
            return
        if not request:
            self.loop.stop()  # the supervisor is gone
            return
        # The supervisor's words, over a socket that nobody else has.
        number, wanted = pickle.loads(request)  # noqa: S301
        self.control.send(pickle.dumps((number, self.answer(wanted))))

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        done: dict[str, Any] = {"worker": self.identity.number}
        match request:
            case {"do": "drain"}:
                self.drain()
            case {"do": "stop"}:
                self.loop.stop()
            case {"do": "status"}:
                done |= self.status()
            case {"do": "lost"}:
                done["lost"] = {
                    name: pool.failure.reason for name, pool in self.pools.items() if pool.failure is not None
                }
            case {"do": "keys", "accepted": dict(accepted), "used": dict(used)}:
                for door in self.doors:
                    door.use_keys(accepted)
                for name, pool in self.pools.items():
                    pool.use_key(used[name])
            case {"do": "resolved", "listener": int(number), "address": (str(host), int(port))}:
                # New connections go there; those that are open stay where they are.
                self.entrances[number].destination = (host, port)
            case {"do": "resolved", "peer": str(name), "address": (str(host), int(port))}:
                self.pools[name].use_address((host, port))
            case _:
                done["error"] = f"unknown request {request.get('do')!r}"
        return done

    def _stuck(self) -> Iterator[tuple[Connection, Address, float, Unacknowledged]]:
        for one in self.connections:
            for address, seconds, what in one.stuck:
                yield one, address, seconds, what

    def status(self) -> dict[str, Any]:
        """What is open now: numbers, pools, those that are stuck, and those that have lasted longest."""
        longest = sorted(self.connections, key=lambda one: -one.seconds)[:_NAMED]
        return {
            "draining": self.draining,
            "connections": len(self.connections),
            "pools": {
                name: {
                    "idle": pool.idle,
                    "wanted": pool.size,
                    "connected": pool.connected,
                    "joins": pool.joins,
                }
                for name, pool in self.pools.items()
            },
            "stuck": [
                {
                    "listener": one.listener,
                    "client": list(one.client),
                    "at": list(address),
                    "seconds": seconds,
                    "segment": what.segment,
                    "path_mtu": what.path_mtu,
                    "timeouts": what.timeouts,
                }
                for one, address, seconds, what in islice(self._stuck(), _NAMED)
            ],
            "longest": [
                {
                    "listener": one.listener,
                    "client": list(one.client),
                    "destination": list(one.destination),
                    "seconds": one.seconds,
                    "to_server": one.moved[0],
                    "to_client": one.moved[1],
                    "held": one.held,
                }
                for one in longest
            ],
        }
