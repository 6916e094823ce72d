"""What a gateway changes: routes, rules and packet queues. Pure: facts and a scope in, a plan out."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from ackward.errors import UsageError
from ackward.model.changes import OUR_PROTOCOL, Change, Family
from ackward.model.gateways import GatewayScope, IngressRuleAdded, LocalRouteAdded, QueueRuleAdded
from ackward.model.plan import Plan, Refusal
from ackward.model.scopes import Scope, WindowScope
from ackward.remedies.detour.plan import Facts, free_table
from ackward.remedies.initcwnd import plan as initcwnd
from ackward.remedies.route_metrics.plan import Routing

NAME = "gateway"
#: Before what sends packets elsewhere, behind the table local.
PREFERENCE = OUR_PROTOCOL
#: Tables of ours are numbered from here on; mirrors of main begin at the first.
_FIRST_TABLE = 128


def plan(facts: Facts, scope: Scope) -> Plan | Refusal:
    """The plan for ``scope``."""
    if not isinstance(scope, GatewayScope):
        raise UsageError(
            f"it is for a running gateway, not for {scope.words}",
            consequence="nothing was changed",
            next_step="run `ackward gateway run`",
        )
    missing = [one.interface for one in scope.diverted if one.interface not in facts.interfaces.values()]
    if missing:
        return Refusal(
            reason=f"there is no interface {missing[0]!r}",
            next_step=f"name one of: {', '.join(sorted(facts.interfaces.values()))}",
        )
    table = free_table(facts, _FIRST_TABLE)
    if table is None:
        return Refusal(
            reason="all routing tables that we number are in use",
            next_step="`ackward undo --all` clears those of ours",
        )
    windows = _windows(facts, scope)
    if isinstance(windows, Refusal):
        return windows
    notes = [note for one in windows for note in one.notes]
    if scope.diverted:
        notes.append(
            "while the gateway is down and this is in force, clients of these networks get no answer (IPv4) or are "
            "refused (IPv6)"
        )
    return Plan(
        remedy=NAME,
        namespace=facts.namespace,
        scope=scope,
        changes=(*(change for one in windows for change in one.changes), *_changes(scope, table)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _windows(facts: Facts, scope: GatewayScope) -> list[Plan] | Refusal:
    """What the remedy initcwnd would change for each network."""
    routing = Routing(facts.namespace, facts.routes, facts.interfaces)
    plans = []
    for one in scope.widened:
        found = initcwnd.plan(
            initcwnd.Facts(routing, None), WindowScope(to=one.network, segments=one.segments)
        )
        if isinstance(found, Refusal):
            return found
        plans.append(found)
    return plans


def _changes(scope: GatewayScope, table: int) -> Iterable[Change]:
    """The routes first: the rules publish their table."""
    for network in dict.fromkeys(one.network for one in scope.diverted):
        yield LocalRouteAdded(family=_family(network), network=network, table=table)
    for one in scope.diverted:
        yield IngressRuleAdded(
            family=_family(one.network),
            preference=PREFERENCE,
            diverted=one,
            table=table,
        )
    for queued in scope.queued:
        yield QueueRuleAdded(family=_family(queued.network), queued=queued)


def _family(network: str) -> Family:
    return 4 if ip_network(network).version == 4 else 6
