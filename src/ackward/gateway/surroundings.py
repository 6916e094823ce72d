"""What a gateway changes around itself, with a receipt: routes, rules, packet queues (the remedy ``gateway``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address, ip_network

from ackward import remedies
from ackward.gateway.settings import FixedListener, Settings
from ackward.gateway.targets import targets_of
from ackward.kernel import background
from ackward.kernel.namespaces import current
from ackward.model.gateways import Diverted, GatewayScope, Queued, Widened
from ackward.model.plan import Receipt, Refusal
from ackward.remedies.receipts import Receipts

NAME = "gateway"


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


#: Widens the routes to the peers' addresses of these settings instead of those before. Raises what the remedy raises.
Widen = Callable[[Settings], None]


class _Part:
    """Changes with a receipt of their own."""

    def __init__(self, store: Receipts) -> None:
        self._remedy, self._store = remedies.load(NAME), store
        self._receipt: Receipt | None = None

    def make(self, scope: GatewayScope) -> None:
        if not (scope.diverted or scope.queued or scope.widened):
            return
        plan = self._remedy.plan(current(), scope)
        if isinstance(plan, Refusal):
            raise plan.as_error()
        self._receipt = self._remedy.apply(plan, self._store)

    def take_back(self) -> None:
        if self._receipt is not None:
            self._remedy.undo(self._receipt, self._store)
            self._receipt = None


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

    def widen(settings: Settings) -> None:
        windows.take_back()  # first: two peers may share a route
        windows.make(scope_of(settings, pid, start_time).model_copy(update={"diverted": (), "queued": ()}))

    with ExitStack() as stack:
        for part in (comings, windows):
            stack.callback(part.take_back)
        comings.make(scope.model_copy(update={"widened": ()}))
        widen(settings)
        yield widen


def clear_dead(store: Receipts) -> None:
    """Undo the receipts of gateways that have ended without doing so."""
    for receipt in store.load().receipts:
        scope = receipt.scope
        if isinstance(scope, GatewayScope) and background.start_time_of(scope.pid) != scope.start_time:
            remedies.load(NAME).undo(receipt, store)
