"""The far end of legs: lets a peer prove itself, asks the allow-list, connects, answers, and joins.

Laws: only from the peers' networks may anybody try; nothing is connected for a peer that has not proved itself; what an
unproved peer can hold is bounded in number and in time; a refusal is answered, so that the entry can tell its client
why.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Final

from ackward.gateway.connection import Connection, Connections, tell_unjoined
from ackward.gateway.counters import Count
from ackward.gateway.listeners import Accepting
from ackward.gateway.loop import READ
from ackward.gateway.protocol import LegFailed, Opened, Ready
from ackward.gateway.protocol_messages import Open, Option, Reason, Result
from ackward.gateway.relay import QUIET
from ackward.gateway.resources import Deadlines, Resources
from ackward.gateway.responder import Door, Known, Responder
from ackward.gateway.settings import Address, End, ExitSettings, LegFailure
from ackward.gateway.sockets import Socket, end_in_order, words
from ackward.gateway.upstream import RESULTS, DirectAttempt

_SCRAP: Final = 1 << 16
_NO_RETURNS: Final = (
    "keep_client needs exit.returns: the networks of clients, and where answers to them come in"
)


class ExitDoor(Accepting):
    """One listening socket for legs."""

    def __init__(
        self, resources: Resources, connections: Connections, settings: ExitSettings, sock: Socket, door: Door
    ) -> None:
        super().__init__(resources, sock)
        self.name, self.keeps_clients = words(settings.bind), bool(settings.returns)
        self.resources, self.connections, self.door = resources, connections, door
        self._networks = tuple(map(ip_network, settings.networks))
        self.deadlines = Deadlines(resources.loop, resources.settings.limits.leg_handshake)
        self.legs: set[ExitLeg] = set()
        self.unproved: dict[ExitLeg, None] = {}  # the oldest first

    def enter(self, near: Socket, client: Address) -> None:
        """A leg arrives. Where there is no room the oldest unproved one goes: strangers cannot keep a peer out."""
        counters = self.resources.counters
        if self._networks and not any(ip_address(client[0]) in network for network in self._networks):
            counters.add(Count.LEGS_REJECTED)
            self.resources.hooks.turned_away(self.name, client, "not in exit.networks")
            near.close()
            return
        if len(self.unproved) >= self.resources.settings.limits.leg_handshakes:
            counters.add(Count.HANDSHAKES_DROPPED)
            next(iter(self.unproved)).turn_away()
        counters.add(Count.LEGS_ACCEPTED)
        leg = ExitLeg(self, near, client)
        self.unproved[leg] = None
        self.legs.add(leg)
        leg.talk(READ)  # a JOIN is most often there already: then it takes no room at all

    def retire(self) -> None:
        """Ask the entries not to use their idle legs any more."""
        for leg in list(self.legs):
            leg.retire()

    def use_keys(self, keys: Mapping[bytes, Known]) -> None:
        """Accept these from now on. Idle legs of a key that is gone are retired, and closed a little later."""
        self.door.keys = keys
        for leg in [leg for leg in self.legs if leg.key_id not in keys]:
            leg.retire()
            self.deadlines.add(partial(self._close_idle, leg))

    def _close_idle(self, leg: ExitLeg) -> None:
        if leg in self.legs and leg.key_id not in self.door.keys:
            leg.close()

    def abandon(self) -> None:
        """End the legs that carry nothing."""
        for leg in list(self.legs):
            leg.close()


class ExitLeg:
    """One leg until its connection is made. It is the origin of that connection's record."""

    __slots__ = ("_attempt", "_door", "_entry", "_near", "_responder", "accepts_legs", "name", "peer")

    def __init__(self, door: ExitDoor, near: Socket, entry: Address) -> None:
        self._door, self._near, self._entry = door, near, entry
        self._responder = Responder(door.door)
        self.name, self.peer, self.accepts_legs = door.name, "", True
        door.resources.loop.add(near.fileno(), READ, self.talk)
        door.deadlines.add(self._overdue)

    @property
    def far_lost(self) -> bool:
        """No gateway is behind it: what is there are servers."""
        return False

    @property
    def key_id(self) -> bytes:
        """The key that the peer has named."""
        return self._responder.key_id

    def _overdue(self) -> None:
        if self in self._door.unproved:
            self._reject(LegFailed("the handshake took too long", Reason.MALFORMED))

    def talk(self, _: int) -> None:
        """Read what is due and do what it says."""
        try:
            while self._responder.wanted:
                data = self._near.recv(self._responder.wanted)
                if not data:
                    self._gone()
                    return
                event = self._responder.receive(data)
                self._say()
                if isinstance(event, Ready):
                    self._prove(event.peer)
                elif isinstance(event, Opened):
                    self._open(event.wanted)
                    return
        except BlockingIOError:
            return
        except LegFailed as failure:
            self._reject(failure)
        except OSError:
            self._gone()

    def _gone(self) -> None:
        """An idle leg was let go: that is the entry's good right. One that never proved itself is told of."""
        if self in self._door.unproved:
            self._tell(LegFailed("the peer left before it had proved itself", Reason.MALFORMED))
        self.close()

    def _say(self) -> None:
        if data := self._responder.outgoing():
            self._near.send(data)

    def _prove(self, peer: str) -> None:
        self._door.unproved.pop(self, None)
        self.peer = peer

    def _tell(self, failure: LegFailed) -> None:
        self._door.resources.counters.add(Count.LEGS_REJECTED)
        self._door.resources.hooks.leg_failed(LegFailure(failure.peer, self._entry, failure))

    def _reject(self, failure: LegFailed) -> None:
        self._tell(failure)
        self._part(failure.goodbye)

    def turn_away(self) -> None:
        """There is no room for it: tell an honest peer why."""
        self._part(self._responder.reject(Reason.BUSY))

    def _part(self, goodbye: bytes) -> None:
        if goodbye:
            with suppress(OSError):  # it may have left first
                self._near.send(goodbye)
                end_in_order(self._near)
        self.close()

    def retire(self) -> None:
        """Ask the entry not to use this leg, if it is idle."""
        if self._responder.is_ready:
            self._responder.retire()
            try:
                self._say()
            except OSError:
                self.close()

    def _leave(self) -> None:
        """It is no idle leg any more."""
        self._door.legs.discard(self)
        self._door.unproved.pop(self, None)

    def close(self) -> None:
        """End it."""
        self._leave()
        self._responder.close()
        self._close_now()

    def _open(self, wanted: Open) -> None:
        self._leave()
        resources = self._door.resources
        host, port = wanted.destination
        destination, client = (str(host), port), (str(wanted.client[0]), wanted.client[1])
        keep = bool(wanted.options & Option.FROM_CLIENT)
        if not resources.hooks.permits(self.peer, wanted):
            self._refuse(client, destination, End.FORBIDDEN)
            return
        if keep and not self._door.keeps_clients:
            resources.hooks.turned_away(self.name, client, f"{_NO_RETURNS} (asked for by {self.peer})")
            self._refuse(client, destination, End.FORBIDDEN)
            return
        if self._door.connections.full:
            self._refuse(client, destination, End.BUSY)
            return
        resources.loop.want(self._near.fileno(), QUIET)
        attempt = DirectAttempt(resources, destination, client if keep else None)
        near, connections = self._near, self._door.connections
        Connection(resources, connections, self, near, client, destination, attempt, near_events=QUIET)

    def joined(self) -> None:
        """Tell the entry that the destination is connected. Raises OSError when the entry is gone."""
        self._answer(Result.CONNECTED)

    def refused(self, _: Socket, end: End) -> None:
        """Answer, and read on until the entry has closed: unread bytes would turn the answer into a reset."""
        resources = self._door.resources
        end_in_order(self._near)
        try:
            self._answer(RESULTS.get(end, Result.FAILED))
        except OSError:
            resources.loop.discard(self._near)
            return
        resources.loop.hand_over(self._near.fileno(), self._forget)
        resources.loop.want(self._near.fileno(), READ)
        self._door.deadlines.add(self._close_now)

    def _answer(self, result: Result) -> None:
        self._responder.answer(result)
        try:
            self._say()
        finally:
            self._responder.close()

    def _refuse(self, client: Address, destination: Address, end: End) -> None:
        tell_unjoined(self._door.resources, self, client, destination, None, end)
        self.refused(self._near, end)

    def _close_now(self) -> None:
        if self._near.fileno() >= 0:
            self._door.resources.loop.discard(self._near)

    def _forget(self, _: int) -> None:
        try:
            if self._near.recv(_SCRAP):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # a reset ends it as well
        self._close_now()
