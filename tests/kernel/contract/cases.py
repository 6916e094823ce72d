"""Every remedy with each of its scopes, and all that any of them may change in a host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.kernel import steering_hosts
from tests.kernel.quickack_hosts import routing

from ackward.kernel.background import start_time_of
from ackward.kernel.bpffs import OURS
from ackward.kernel.namespaces import Namespace
from ackward.model.bypass import Hazard
from ackward.model.gateways import Diverted, GatewayScope, Queued, Widened
from ackward.model.pins import ProcessPins
from ackward.model.plan import Plan, Receipt
from ackward.model.scopes import (
    BypassScope,
    CapScope,
    PortScope,
    RouteScope,
    Scope,
    SocketScope,
    WindowScope,
)
from ackward.remedies.detour import follower
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import Remedy, identify

SCOPES: dict[str, list[Scope]] = {
    "quickack": [
        RouteScope(),
        RouteScope(to="198.19.0.0/24"),
        RouteScope(to="203.0.113.0/24"),
        PortScope(port=7300),
        SocketScope(
            ports=(7300, 7310),
            to="127.0.0.0/8",
            cgroup=f"/{steering_hosts.CGROUP.name}",
            pid=os.getpid(),
            start_time=start_time_of(os.getpid()),
        ),
        CapScope(ports=(7300, 7310), cap_us=8000),
    ],
    "nodelay": [
        SocketScope(ports=(7300, 7310), to="127.0.0.0/8", cgroup=f"/{steering_hosts.CGROUP.name}"),
        SocketScope(pid=os.getpid(), start_time=start_time_of(os.getpid())),
    ],
    "pin": [ProcessPins(pid=os.getpid(), start_time=start_time_of(os.getpid()))],
    "initcwnd": [
        WindowScope(segments=30, after_idle=True),
        WindowScope(to="203.0.113.0/24", segments=30),
    ],
    "gateway": [
        GatewayScope(
            pid=os.getpid(),
            start_time=start_time_of(os.getpid()),
            diverted=(Diverted(network="203.0.113.0/24", interface="lo", first_port=80, last_port=90),),
            queued=(Queued(network="2001:db8::/64", first_port=443, last_port=443, queue=7),),
            widened=(Widened(network="203.0.113.0/24", segments=40),),
        )
    ],
    # All hazards accepted: the contract is not about what the self-test finds.
    "bypass": [
        BypassScope(
            ports=(7300, 7310),
            to="127.0.0.0/8",
            cgroup=f"/{steering_hosts.CGROUP.name}",
            accepted=tuple(Hazard),
        )
    ],
}

#: Kinds of change that set a field of somebody else's object: without a receipt nobody can tell who set it.
FOREIGN = {"route-metric", "sysctl"}


@dataclass(frozen=True)
class Case:
    remedy: Remedy
    scope: Scope

    def plan(self, host: Namespace) -> Plan:
        return plan_of(self.remedy, host, self.scope)

    def apply(self, host: Namespace, store: Receipts) -> Receipt:
        receipt = self.remedy.apply(self.plan(host), store)
        assert receipt is not None
        return receipt


def pins() -> list[Path]:
    """The directories of all receipts that have pins."""
    return sorted(OURS.iterdir()) if OURS.exists() else []


def state(host: Namespace) -> dict[str, object]:
    """All that a remedy may change in a host: routes, rules, hooks, options of its open connections."""
    netns = identify(host).cookie
    pinned = {
        str(directory): sorted(pin.name for pin in directory.iterdir())
        for directory in pins()
        if directory.name.endswith(f"@{netns}")
    }
    return {**routing(host), "hooks": pinned, "options": steering_hosts.options(host)}


def followers(store: Receipts) -> int:
    return len(list(follower.running(store.directory)))


def plan_of(remedy: Remedy, host: Namespace, scope: Scope | None = None) -> Plan:
    """The plan for a scope, else for all routes."""
    made = remedy.plan(host, scope or RouteScope())
    assert isinstance(made, Plan), made
    return made
