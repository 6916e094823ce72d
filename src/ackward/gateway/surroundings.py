"""What a gateway changes around itself, with a receipt: routes, rules, packet queues (the remedy ``gateway``)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address, ip_network

from ackward import remedies
from ackward.errors import AckwardError, UnknownName
from ackward.gateway.settings import FixedListener, Settings
from ackward.gateway.targets import targets_of
from ackward.kernel import background
from ackward.kernel.namespaces import current
from ackward.model.changes import RouteMetric
from ackward.model.gateways import Diverted, GatewayScope, Queued, Widened
from ackward.model.plan import Plan, Receipt, Refusal
from ackward.remedies.gateway.owner import lives
from ackward.remedies.receipts import Receipts

NAME = "gateway"
#: How often routes are looked at, seconds; and what part of the time may be spent on it: a full table takes seconds.
_EVERY, _SHARE = 10.0, 0.01
_NOT_IN_FORCE = "the step window is not in force, legs begin slowly"


def queue_of(settings: Settings, pid: int) -> int | None:
    """The number of the NFQUEUE of faithful listeners; None without any.

    Made of the supervisor's PID, so that gateways in one namespace have their own.
    """
    return pid % 65535 + 1 if any(listener.faithful for listener in settings.listeners) else None


def scope_of(settings: Settings, pid: int, start_time: int) -> GatewayScope:
    """All that is to be changed. Pure."""
    queue = queue_of(settings, pid)
    queued = [
        Queued(
            network=target.network,
            interface=target.interface,
            first_port=target.first_port,
            last_port=target.last_port,
            queue=queue,
        )
        for target in targets_of(settings.listeners)
        if queue is not None and settings.listeners[target.listener].faithful
    ]
    return GatewayScope(
        pid=pid,
        start_time=start_time,
        diverted=tuple(_diverted(settings)),
        queued=tuple(queued),
        widened=tuple(_widened(settings)) if settings.steps.window else (),
    )


def _diverted(settings: Settings) -> Iterator[Diverted]:
    for listener in settings.listeners:
        if not isinstance(listener, FixedListener):
            for first, last in listener.ports:
                yield Diverted(
                    network=listener.network, interface=listener.interface, first_port=first, last_port=last
                )
    # Answers to connections that were made from the clients' own addresses.
    returns = [one for place in settings.exits for one in place.returns]
    for listener in settings.listeners:
        returns += () if isinstance(listener, FixedListener) else listener.returns
    for network, interface in dict.fromkeys(returns):
        yield Diverted(network=network, interface=interface)


def _widened(settings: Settings) -> Iterator[Widened]:
    """The networks at the far ends of this gateway's legs."""
    hosts = [ip_address(peer.address[0]) for peer in settings.peers]
    networks = [f"{host}/{host.max_prefixlen}" for host in hosts]
    networks += [network for exit_ in settings.exits for network in exit_.networks]
    for network in dict.fromkeys(networks):
        if ip_network(network).is_loopback:
            continue  # no way is long there, and its routes are the table local's
        yield Widened(network=network, segments=settings.segments)


class _Part:
    """Changes with a receipt of their own."""

    def __init__(self, store: Receipts) -> None:
        self._remedy, self._store = remedies.load(NAME), store
        self._receipt: Receipt | None = None

    def plan(self, scope: GatewayScope) -> Plan:
        """What is not yet as the scope says. Raises :class:`~ackward.errors.Refused`."""
        plan = self._remedy.plan(current(), scope)
        if isinstance(plan, Refusal):
            raise plan.as_error()
        return plan

    def make(self, scope: GatewayScope) -> None:
        if scope.diverted or scope.queued or scope.widened:
            self._receipt = self._remedy.apply(self.plan(scope), self._store)

    def take_back(self) -> None:
        if self._receipt is not None:
            with suppress(UnknownName):  # somebody has undone it before us
                self._remedy.undo(self._receipt, self._store)
            self._receipt = None


class Widen:
    """The routes to the far ends of legs, wide for as long as the gateway lives.

    What has the initial window already gets no receipt here: it is somebody else's, for example that of another gateway
    to the same peer, and goes when they end. So it is looked at again and again.
    """

    def __init__(self, part: _Part, around: GatewayScope) -> None:
        """``around``: all that is changed; other parts of it are not this one's."""
        self._part = part
        self._scope = _windows_alone(around)
        self._due, self._told = 0.0, ""

    def __call__(self, settings: Settings) -> None:
        """Widen the routes to the peers' addresses of these settings instead. Raises what the remedy raises."""
        around = scope_of(settings, self._scope.pid, self._scope.start_time)
        self._scope = _windows_alone(around)
        self.make()

    def make(self) -> None:
        """Make them wide, under one new receipt. Raises what the remedy raises."""
        self._part.take_back()  # first: two peers may share a route
        self._part.make(self._scope)
        self._due = time.monotonic() + _EVERY

    def lacking(self) -> str | None:
        """What is not as it should be now, in words; None: nothing. Reads only."""
        try:
            narrow = self._narrow()
        except (AckwardError, OSError) as error:
            narrow = str(error)
        return f"{_NOT_IN_FORCE}: {narrow}" if narrow else None

    def again(self) -> str | None:
        """Put back what others have taken, if it is time to look; gives what there is to tell of that, once."""
        began = time.monotonic()
        if began < self._due:
            return None
        try:
            narrow = self._narrow()
            if narrow:
                self.make()
            words = f"the step window was not in force, and was put back: {narrow}" if narrow else ""
            told = ""
        except (AckwardError, OSError) as error:
            words = told = f"{_NOT_IN_FORCE}: {error}"
        ended = time.monotonic()
        self._due = ended + max(_EVERY, (ended - began) / _SHARE)
        known, self._told = self._told, told
        return words if words and words != known else None

    def _narrow(self) -> str:
        """The changes that would make the routes as wide as they are meant to be; empty: none."""
        if not self._scope.widened:
            return ""
        plan = self._part.plan(self._scope)
        # A route may be wider: two gateways with windows of their own would set it in turns for ever.
        narrow = [
            change
            for change in plan.changes
            if not (isinstance(change, RouteMetric) and change.before > change.after)
        ]
        return "; ".join(change.words for change in narrow)


def _windows_alone(scope: GatewayScope) -> GatewayScope:
    return scope.model_copy(update={"diverted": (), "queued": ()})


@contextmanager
def surrounded(settings: Settings, store: Receipts) -> Iterator[Widen]:
    """Make the changes until the end; take back first what killed gateways left. Raises what the remedy raises."""
    pid = os.getpid()
    start_time = background.start_time_of(pid)
    assert start_time is not None
    scope = scope_of(settings, pid, start_time)
    if scope.diverted or scope.queued or scope.widened:
        clear_dead(store)
    comings, windows = _Part(store), _Part(store)
    widen = Widen(windows, scope)
    with ExitStack() as stack:
        for part in (comings, windows):
            stack.callback(part.take_back)
        comings.make(scope.model_copy(update={"widened": ()}))
        widen.make()
        yield widen


def clear_dead(store: Receipts) -> None:
    """Undo the receipts of gateways that have ended without doing so."""
    for receipt in store.load().receipts:
        if isinstance(receipt.scope, GatewayScope) and not lives(receipt.scope):
            remedies.load(NAME).undo(receipt, store)
