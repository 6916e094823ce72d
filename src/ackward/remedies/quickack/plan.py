"""What quickack would change. Pure: facts and a scope in, a plan or a refusal out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ackward.kernel.route_message import TABLE_LOCAL, TABLE_MAIN, UNICAST, Route
from ackward.kernel.rules import TO_TABLE, Rule
from ackward.model.changes import (
    OUR_PROTOCOL,
    Change,
    FollowerStarted,
    Metric,
    RuleAdded,
    TableMirrored,
)
from ackward.model.plan import NamespaceIdentity, Plan, Refusal
from ackward.model.scopes import PortScope, RouteScope, Scope
from ackward.remedies.route_metrics.plan import Request, Routing, plan_routes

NAME = "quickack"

#: Numbers for mirrored tables: ours by the same byte as our protocol, far from what others number by hand.
TABLES = range(OUR_PROTOCOL << 8, (OUR_PROTOCOL << 8) + 256)


@dataclass(frozen=True)
class Facts:
    """A namespace's routing: the routes and rules of both families, and its interfaces' names by number."""

    namespace: NamespaceIdentity
    routes: tuple[Route, ...]
    rules: tuple[Rule, ...]
    interfaces: Mapping[int, str]


def plan(facts: Facts, scope: Scope) -> Plan | Refusal:
    """The plan for ``scope`` in a namespace. Without changes it says why none are needed."""
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


# Ports


def _plan_port(facts: Facts, scope: PortScope) -> Plan | Refusal:
    changes: list[Change] = []
    notes: list[str] = []
    table = _free_table(facts)
    if table is None:
        return Refusal(
            reason=f"all routing tables from {TABLES.start} to {TABLES.stop - 1} are in use",
            next_step="`ackward undo --all` clears those of ours",
        )
    rules: list[RuleAdded] = []
    for family in (4, 6):
        own = [rule for rule in facts.rules if rule.family == family]
        if not own:
            notes.append(f"IPv{family} is not there and left out")
            continue
        if any(rule.protocol == OUR_PROTOCOL and scope.port in (rule.sport, rule.dport) for rule in own):
            return _rules_are_there(facts, scope)
        main = next((rule for rule in own if _is_main(rule)), None)
        if main is None or main.preference == 0:
            return Refusal(
                reason=f"there is no IPv{family} rule `from all lookup main` that ours could precede",
                next_step="use the route scope (without --port)",
            )
        for rule in _before(own, main):
            if (rule.selective and not rule.inverted) or not _takes_all(rule, facts.routes):
                notes.append(f"traffic that the IPv{family} rule {rule.words} takes does not come to ours")
            else:
                return Refusal(
                    reason=f"the IPv{family} rule {rule.words} takes the traffic before ours would see it",
                    next_step="use the route scope (without --port): it changes that rule's table too",
                )
        rules += [
            RuleAdded(
                family=family, preference=main.preference - 1, selector=side, port=scope.port, table=table
            )
            for side in ("sport", "dport")
        ]
        changes.append(TableMirrored(family=family, table=table))
    if not rules:
        return Refusal(
            reason="this kernel has no policy routing rules (CONFIG_IP_MULTIPLE_TABLES)",
            next_step="use the route scope (without --port)",
        )
    main_routes = [r for r in facts.routes if r.key.table == TABLE_MAIN and r.type == UNICAST]
    if main_routes and all(route.quickack for route in main_routes):
        return _as_plan(facts, scope, [], ["every route of the table main has quickack already"])
    notes.append(
        "connections that stay inside the namespace (loopback) take the table local, which is left alone"
    )
    # The rules publish the table: no packet meets one that is not filled.
    return _as_plan(facts, scope, [*changes, *rules, FollowerStarted(table=table)], notes)


def _rules_are_there(facts: Facts, scope: PortScope) -> Plan | Refusal:
    present = {
        (rule.family, side)
        for rule in facts.rules
        if rule.protocol == OUR_PROTOCOL
        for side, port in (("sport", rule.sport), ("dport", rule.dport))
        if port == scope.port
    }
    families = {rule.family for rule in facts.rules}
    if present == {(family, side) for family in families for side in ("sport", "dport")}:
        return _as_plan(facts, scope, [], [f"{scope.words} has quickack already"])
    return Refusal(
        reason=f"some rules of an earlier quickack for {scope.words} are there and some are missing",
        next_step="`ackward undo --all` clears them, then apply again",
    )


def _is_main(rule: Rule) -> bool:
    return (
        rule.action == TO_TABLE
        and rule.table == TABLE_MAIN
        and not (rule.selective or rule.inverted or rule.suppressing)
    )


def _before(rules: Iterable[Rule], main: Rule) -> list[Rule]:
    """Rules that are consulted before ours, but for the table local, our own, and what can give no route."""
    return [
        rule
        for rule in rules
        if rule.preference < main.preference and rule.protocol != OUR_PROTOCOL and rule.table != TABLE_LOCAL
    ]


def _takes_all(rule: Rule, routes: Iterable[Route]) -> bool:
    """Whether a rule that matches (nearly) all traffic also answers for it: no rule after it is asked."""
    if rule.action != TO_TABLE or rule.table == TABLE_MAIN:
        return True
    return any(
        route.key.table == rule.table
        and route.key.family == rule.family
        and route.key.destination.prefixlen == 0
        for route in routes
    )


def _free_table(facts: Facts) -> int | None:
    taken = {route.key.table for route in facts.routes} | {rule.table for rule in facts.rules}
    return next((table for table in TABLES if table not in taken), None)


def _as_plan(facts: Facts, scope: Scope, changes: Sequence[Change], notes: Sequence[str]) -> Plan:
    return Plan(
        remedy=NAME,
        namespace=facts.namespace,
        scope=scope,
        changes=tuple(changes),
        notes=tuple(dict.fromkeys(notes)),
    )
