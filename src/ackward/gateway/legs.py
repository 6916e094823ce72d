"""The pool of legs to one peer: connected, authenticated and wide before anybody asks for them.

Laws:

- The leg that founded the session carries nothing: the right to join ends with it.
- The pool grows with the load: as many legs as are asked for while one is being made, one and a half times, and never
  fewer than the least or more than the most. When the peer is gone it asks again, ever more slowly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

from ackward.gateway.counters import Count
from ackward.gateway.initiator import Session
from ackward.gateway.leg import Leg, LegAttempt, nobody
from ackward.gateway.protocol import LegFailed
from ackward.gateway.protocol_messages import Open, Option, Reason
from ackward.gateway.resources import Resources
from ackward.gateway.settings import Address, LegFailure, PeerSettings, Retirement

#: How often the pool is brought to its size, in seconds.
_TICK = 0.25
#: Seconds until a peer that could not be reached is asked again: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
#: Legs that are reset within so many seconds of the founder are lost with their peer.
_WITH_THE_PEER = 1.0


class Pool:
    """The legs to one peer, and the upstream of those whose connections go there."""

    def __init__(self, resources: Resources, peer: PeerSettings) -> None:
        self._resources, self._peer = resources, peer
        self._idle: list[Leg] = []
        self._making: set[Leg] = set()
        self._founder: Leg | None = None
        self._session: Session | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self._made_in = 0.1  # seconds that a leg takes to become ready
        self._taken = 0
        self._rate = 0.0
        self._looked = time.monotonic()
        #: Why the peer is not connected; None: it is, or there was no reason yet.
        self.failure: LegFailure | None = None
        self._lost_at = -math.inf
        self.closed = False
        self._tick()

    @property
    def idle(self) -> int:
        """Legs that are ready."""
        return len(self._idle)

    @property
    def connected(self) -> bool:
        """Whether the peer has proved itself and is there."""
        return self._founder is not None and self._founder not in self._making

    @property
    def just_lost(self) -> bool:
        """Whether the peer was lost right now: legs that end at this moment end with it, and no server reset them."""
        founder = self._founder
        if self.connected and founder is not None and founder.is_gone:
            return True
        return time.monotonic() - self._lost_at < _WITH_THE_PEER

    def begin(self, destination: Address, client: Address, *, keep_client: bool) -> LegAttempt:
        """Ask for ``destination`` over the leg that became ready last, or over a new one."""
        wanted = Open(
            (ip_address(destination[0]), destination[1]),
            (ip_address(client[0].partition("%")[0]), client[1]),
            Option.FROM_CLIENT if keep_client else Option.NONE,
        )
        self._taken += 1
        self._resources.counters.add(Count.LEGS_USED)
        if self._idle:
            leg: Leg | None = self._idle.pop()
            self._count_idle()
            self._fill()
        else:
            self._resources.counters.add(Count.POOL_EMPTY)
            leg = self._make_for_one()
        return LegAttempt(self._resources, leg, wanted, self._failed)

    def _make_for_one(self) -> Leg | None:
        try:
            return Leg(self._resources, self._peer, self._session, nobody)
        except OSError as error:
            self._failed(error)
            return None

    def use_key(self, key: bytes) -> None:
        """Make legs with another key from now on; those that are there stay."""
        if key == self._peer.key:
            return
        self._peer = replace(self._peer, key=key)
        self._end_session()

    def use_address(self, address: Address) -> None:
        """Make legs to another address from now on; those that carry a connection stay."""
        if address == self._peer.address:
            return
        self._peer = replace(self._peer, address=address)
        self._end_session()
        self._let_go_unused()

    def _end_session(self) -> None:
        """Begin no further leg that joins; those that are on their way may do so yet: clients wait for them."""
        founder, self._session, self._founder = self._founder, None, None
        if founder is not None:
            self._making.discard(founder)
            founder.changed = nobody
            self._resources.loop.after(self._resources.settings.limits.leg_handshake, founder.let_go)

    def _let_go_unused(self) -> None:
        for leg in {*self._idle, *self._making}:
            leg.let_go()
        self._idle.clear()
        self._making.clear()
        self._count_idle()

    @property
    def joins(self) -> bool:
        """Whether the peer lets further legs join, without a round trip: not one with several workers."""
        return self._session is not None

    @property
    def size(self) -> int:
        """Idle legs that there should be now."""
        if not self._resources.settings.steps.pool:
            return 0
        size = self._peer.pool
        return min(size.most, size.least + math.ceil(1.5 * self._rate * self._made_in))

    def _tick(self) -> None:
        if self.closed:
            return
        now = time.monotonic()
        rate = self._taken / max(now - self._looked, 1e-3)
        self._rate = max(rate, self._rate * 0.9)
        self._taken, self._looked = 0, now
        overdue = now - self._resources.settings.limits.leg_handshake
        for leg in [leg for leg in self._making if leg.since < overdue]:
            leg.fail(TimeoutError("the leg's handshake took too long"))
        if self._founder is None:
            self._found()
        self._fill()
        self._trim()
        self._resources.loop.after(_TICK, self._tick)

    def _trim(self) -> None:
        """Let go of one leg of those that are left over from a busier time: the oldest."""
        if len(self._idle) > 2 * self.size:
            self._idle.pop(0).let_go()
            self._count_idle()

    def _found(self) -> None:
        """The first leg of all: the session hangs on it, so it carries nothing itself."""
        if not self._may_make():
            return
        leg = self._make(None, self._founded)
        if leg is not None:
            self._founder = leg

    def _founded(self, leg: Leg) -> None:
        was_connected = self.connected
        self._making.discard(leg)
        if leg.failure is not None:
            if was_connected and not isinstance(leg.failure, Retirement):
                self._lost_at = time.monotonic()
            self._founder = self._session = None
            self._failed(leg.failure)
            return
        self._ready(leg)
        if self.failure is not None:
            self.failure = None
            self._resources.hooks.leg_failed(LegFailure(self._peer.name, self._peer.address, None))
        self._session = leg.initiator.session
        self._fill()

    def _fill(self) -> None:
        if not self.connected:
            return
        for _ in range(self.size - len(self._idle) - len(self._making)):
            if not self._may_make():
                return
            self._make(self._session, self._pooled)

    def _may_make(self) -> bool:
        return not self.closed and time.monotonic() >= self._not_before

    def _make(self, session: Session | None, changed: Callable[[Leg], None]) -> Leg | None:
        try:
            leg = Leg(self._resources, self._peer, session, changed)
        except OSError as error:
            self._failed(error)
            return None
        self._making.add(leg)
        return leg

    def _pooled(self, leg: Leg) -> None:
        if leg.failure is None and not leg.initiator.is_ready:
            return  # it could be opened already; the pool waits until the peer has proved itself
        self._making.discard(leg)
        if leg.failure is None:
            self._ready(leg)
            self._idle.append(leg)
        elif leg in self._idle:
            self._idle.remove(leg)  # it was ready, and its peer has ended it
        else:
            self._failed(leg.failure)
        self._count_idle()

    def _ready(self, leg: Leg) -> None:
        self._pause = self._not_before = 0.0
        self._made_in += (time.monotonic() - leg.since - self._made_in) / 4
        self._resources.counters.add(Count.LEGS_READY)

    def _failed(self, error: LegFailed | OSError) -> None:
        """Ask again later, and ever later."""
        if isinstance(error, LegFailed) and error.reason is Reason.UNKNOWN_SESSION:
            self._end_session()
        self._pause = min(_LONGEST_PAUSE, self._pause * 2 or _FIRST_PAUSE)
        self._not_before = time.monotonic() + self._pause
        self._tell_failure(error)

    def _tell_failure(self, error: LegFailed | OSError) -> None:
        if self.closed:
            return
        failure = LegFailure(self._peer.name, self._peer.address, error)
        if not self.connected:
            self.failure = failure
        if not isinstance(error, Retirement):
            self._resources.counters.add(Count.LEGS_FAILED)
        self._resources.hooks.leg_failed(failure)

    def _count_idle(self) -> None:
        self._resources.counters.set(Count.LEGS_IDLE, len(self._idle))

    def close(self) -> None:
        """End the legs that nobody uses."""
        self.closed = True
        self._end_session()
        self._let_go_unused()
