"""What quickack would change. Pure: facts and a scope in, a plan or a refusal out.

The plans for scopes of single sockets are in :mod:`ackward.remedies.quickack.sockets`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ackward.kernel.route_message import Route
from ackward.model.changes import OUR_PROTOCOL, Change, Metric, RuleAdded
from ackward.model.plan import Plan, Refusal
from ackward.model.scopes import PortScope, RouteScope, Scope
from ackward.remedies.detour.plan import Facts, detour
from ackward.remedies.route_metrics.plan import Request, Routing, plan_routes

NAME = "quickack"
NEEDLESS = "every route of the table main has quickack already"


def plan(facts: Facts, scope: Scope) -> Plan | Refusal:
    """The plan for routes or a port in a namespace. Without changes it says why none are needed."""
    match scope:
        case PortScope():
            return _plan_port(facts, scope)
        case RouteScope():
            return _plan_routes(facts, scope)
        case _:
            raise TypeError(scope)


def _plan_routes(facts: Facts, scope: RouteScope) -> Plan | Refusal:
    routing = Routing(facts.namespace, facts.routes, facts.interfaces)
    request = Request(
        remedy=NAME,
        to=scope.to,
        every=scope.every,
        lacking=_lacking,
        scope=scope.words,
        state="quickack",
        aside="--port N",
        follows="--port N",
    )
    found = plan_routes(routing, request)
    return found if isinstance(found, Refusal) else _as_plan(facts, scope, found.changes, found.notes)


def _lacking(route: Route) -> dict[Metric, int]:
    return {} if route.quickack else {"quickack": 1}


def _plan_port(facts: Facts, scope: PortScope) -> Plan | Refusal:
    if present := _our_rules(facts, scope):
        return _rules_are_there(facts, scope, present)
    way = detour(facts, otherwise="use the route scope (without --port)")
    if isinstance(way, Refusal):
        return way
    if facts.main_has_quickack:
        return _as_plan(facts, scope, [], [NEEDLESS])
    rules = [
        RuleAdded(
            family=place.family,
            preference=place.preference,
            selector=side,
            port=scope.port,
            table=way.table,
        )
        for place in way.places
        for side in ("sport", "dport")
    ]
    return _as_plan(facts, scope, way.changes(rules), way.notes)


def _our_rules(facts: Facts, scope: PortScope) -> set[tuple[int, str]]:
    """The families and sides that rules of ours are there for already."""
    return {
        (rule.family, side)
        for rule in facts.rules
        if rule.protocol == OUR_PROTOCOL
        for side, port in (("sport", rule.sport), ("dport", rule.dport))
        if port == scope.port
    }


def _rules_are_there(facts: Facts, scope: PortScope, present: set[tuple[int, str]]) -> Plan | Refusal:
    families = {rule.family for rule in facts.rules}
    if present == {(family, side) for family in families for side in ("sport", "dport")}:
        return _as_plan(facts, scope, [], [f"{scope.words} has quickack already"])
    return Refusal(
        reason=f"some rules of an earlier quickack for {scope.words} are there and some are missing",
        next_step="`ackward undo --all` clears them, then apply again",
    )


def _as_plan(facts: Facts, scope: Scope, changes: Sequence[Change], notes: Sequence[str]) -> Plan:
    return Plan(
        remedy=NAME,
        namespace=facts.namespace,
        scope=scope,
        changes=tuple(changes),
        notes=tuple(dict.fromkeys(notes)),
    )
