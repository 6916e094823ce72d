"""What a gateway changes around itself, with a receipt: routes, rules, packet queues (the remedy ``gateway``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

from ackward import remedies
from ackward.gateway.settings import FixedListener, Settings
from ackward.gateway.targets import targets_of
from ackward.kernel import background
from ackward.kernel.namespaces import current
from ackward.model.gateways import Diverted, GatewayScope, Queued, Widened
from ackward.model.plan import Refusal
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
    for exit_ in settings.exits:
        # Answers to connections that were made from the clients' own addresses.
        for network, interface in exit_.returns:
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


@contextmanager
def surrounded(settings: Settings, store: Receipts) -> Iterator[None]:
    """Make the changes until the end; take back first what killed gateways left. Raises what the remedy raises."""
    remedy = remedies.load(NAME)
    pid = os.getpid()
    start_time = background.start_time_of(pid)
    assert start_time is not None
    scope = scope_of(settings, pid, start_time)
    if not (scope.diverted or scope.queued or scope.widened):
        yield
        return
    clear_dead(store)
    plan = remedy.plan(current(), scope)
    if isinstance(plan, Refusal):
        raise plan.as_error()
    receipt = remedy.apply(plan, store)
    try:
        yield
    finally:
        if receipt is not None:
            remedy.undo(receipt, store)


def clear_dead(store: Receipts) -> None:
    """Undo the receipts of gateways that have ended without doing so."""
    for receipt in store.load().receipts:
        scope = receipt.scope
        if isinstance(scope, GatewayScope) and background.start_time_of(scope.pid) != scope.start_time:
            remedies.load(NAME).undo(receipt, store)
