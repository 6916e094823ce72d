"""A gateway's effects around itself: windows of routes, local routes, rules for what comes in, queues of SYNs."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path

from ackward.kernel import ingress_rules, queue_rules, routes
from ackward.kernel.ingress_rules import IngressRule
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink
from ackward.kernel.route_message import Route, local
from ackward.model.changes import OUR_PROTOCOL, Change, RouteAdded, RouteMetric
from ackward.model.gateways import GatewayScope, IngressRuleAdded, LocalRouteAdded, Queued, QueueRuleAdded
from ackward.model.plan import Ending, Look, Plan, Receipt, Refusal, State, Undone
from ackward.model.scopes import Scope
from ackward.remedies import transaction
from ackward.remedies.detour.apply import facts
from ackward.remedies.gateway import plan as planning
from ackward.remedies.gateway.owner import lives
from ackward.remedies.over_netlink import OverNetlink
from ackward.remedies.route_metrics.apply import FAMILIES, RouteMetrics, looked

_LAST_PORT = 65535


def plan(namespace: Namespace, scope: Scope) -> Plan | Refusal:
    """What a gateway would change in ``namespace``; reads only."""
    return planning.plan(facts(namespace), scope)


class Surroundings(OverNetlink):
    """The effects, inside ``namespace``; the receipt's file tells whose they are."""

    def __init__(self, namespace: Namespace, receipt: Path) -> None:
        super().__init__(namespace)
        self._receipt = receipt
        self._windows = RouteMetrics(self._netlink)

    def make(self, change: Change) -> Change:
        """Make the change."""
        match change:
            case RouteMetric() | RouteAdded():
                self._windows.make(change)
            case LocalRouteAdded():
                body = local(ip_network(change.network), protocol=OUR_PROTOCOL, table=change.table)
                routes.add_new(self._netlink, body, doing=f"to {change.words}")
            case IngressRuleAdded():
                ingress_rules.add(self._netlink, _rule(change))
            case QueueRuleAdded():
                queue_rules.add(self._namespace, change.family, _words(change.queued))
            case _:
                raise TypeError(change)
        return change

    def look(self, change: Change) -> Look:
        """Read the change back from the kernel."""
        match change:
            case RouteMetric() | RouteAdded():
                return self._windows.look(change)
            case LocalRouteAdded():
                return _there(f"the local route to {change.network}", bool(self._routes(change)))
            case IngressRuleAdded():
                present = _rule(change) in ingress_rules.dump(self._netlink, change.family)
                return _there(f"the rule for TCP to {change.diverted.words}", present)
            case QueueRuleAdded():
                present = queue_rules.there(self._namespace, change.family, _words(change.queued))
                return _there(f"the queue for SYNs to {change.queued.words}", present)
            case _:
                raise TypeError(change)

    def unmake(self, change: Change) -> Undone:
        """Take the change back, also from a gateway that needs it: then the words say so."""
        undone = self._unmake(change)
        user = self._user() if undone.ending is Ending.UNDONE else None
        if user is None:
            return undone
        return undone.model_copy(
            update={"words": f"{undone.words}; the gateway that is process {user} runs and needs it"}
        )

    def _user(self) -> int | None:
        """The process that the receipt is for, if it runs and is not the one that undoes."""
        scope = Receipt.model_validate_json(self._receipt.read_bytes()).scope
        if not isinstance(scope, GatewayScope) or scope.pid == os.getpid() or not lives(scope):
            return None
        return scope.pid

    def _unmake(self, change: Change) -> Undone:
        match change:
            case RouteMetric() | RouteAdded():
                return self._windows.unmake(change)
            case LocalRouteAdded():
                found = self._routes(change)
                doing = f"to take back: {change.words}"
                undone = sum(routes.delete(self._netlink, one, doing=doing) for one in found) > 0
            case IngressRuleAdded():
                undone = ingress_rules.delete(self._netlink, _rule(change))
            case QueueRuleAdded():
                undone = queue_rules.delete(self._namespace, change.family, _words(change.queued))
            case _:
                raise TypeError(change)
        ending = Ending.UNDONE if undone else Ending.NOTHING
        return Undone(ending=ending, words=f"{ending.value}: {change.words}")

    def _routes(self, change: LocalRouteAdded) -> list[Route]:
        return [
            route
            for route in routes.dump(self._netlink, change.family)
            if route.protocol == OUR_PROTOCOL
            and route.key.table == change.table
            and str(route.key.destination) == change.network
        ]


def _there(what: str, present: bool) -> Look:
    return looked(State.IN_FORCE if present else State.GONE, what, "is there" if present else "is gone")


def _rule(change: IngressRuleAdded) -> IngressRule:
    diverted = change.diverted
    return IngressRule(
        preference=change.preference,
        network=diverted.network,
        interface=diverted.interface,
        # A rule with a range of ports has each packet's ports looked up: not where all are meant.
        ports=None
        if diverted.first_port <= 1 and diverted.last_port == _LAST_PORT
        else (diverted.first_port, diverted.last_port),
        table=change.table,
        protocol=OUR_PROTOCOL,
    )


def _words(queued: Queued) -> tuple[str, ...]:
    return queue_rules.specification(
        network=queued.network,
        interface=queued.interface,
        first_port=queued.first_port,
        last_port=queued.last_port,
        queue=queued.queue,
    )


def sweep(namespace: Namespace, _: Path) -> transaction.Swept:
    """Remove queue rules and ingress rules of ours. Routes of our protocol number are quickack's to sweep."""
    removed = queue_rules.sweep(namespace)
    with Netlink(namespace) as netlink:
        for family in FAMILIES:
            for rule in ingress_rules.dump(netlink, family):
                if rule.protocol == OUR_PROTOCOL and ingress_rules.delete(netlink, rule):
                    removed.append(
                        f"{namespace.name}: IPv{family} rule to {rule.network} iif {rule.interface}"
                    )
    return transaction.Swept(removed=tuple(removed))


REMEDY = transaction.Remedy(planning.NAME, plan, Surroundings, sweep)
