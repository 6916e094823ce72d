"""What quickack would change. Pure: facts and a scope in, a plan or a refusal out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network

from ackward.errors import UsageError
from ackward.kernel.route_message import TABLE_LOCAL, TABLE_MAIN, UNICAST, Key, Network, Route, rebuilt
from ackward.kernel.routes import sharing_key
from ackward.kernel.rules import TO_TABLE, Rule
from ackward.model.changes import (
    OUR_PROTOCOL,
    Change,
    Family,
    FollowerStarted,
    RouteAdded,
    RouteName,
    RouteQuickack,
    RuleAdded,
    TableMirrored,
)
from ackward.model.plan import NamespaceIdentity, Plan, Refusal
from ackward.model.scopes import PortScope, RouteScope, Scope

NAME = "quickack"

#: Numbers for mirrored tables: ours by the same byte as our protocol, far from what others number by hand.
TABLES = range(OUR_PROTOCOL << 8, (OUR_PROTOCOL << 8) + 256)

# Measured: a replaced one outlives an advertisement with lifetime 0. It has lost RTF_ADDRCONF, for which
# rt6_get_dflt_router() looks.
_LEARNED = "was learned by the kernel from a router advertisement"
_WITHDRAWN = "a changed one would not be withdrawn when the router says so"

_LINK_LOCAL = ip_network("fe80::/10")


@dataclass(frozen=True)
class Facts:
    """A namespace's routing: the routes and rules of both families, and its interfaces' names by number."""

    namespace: NamespaceIdentity
    routes: tuple[Route, ...]
    rules: tuple[Rule, ...]
    interfaces: Mapping[int, str]


def network(text: str) -> Network:
    """The network that ``--to`` names; raises :class:`UsageError`."""
    try:
        return ip_network(text)
    except ValueError as error:
        step = "write it as 10.0.0.0/8 or fd00::/8"
        with suppress(ValueError):  # not even an address: there is nothing better to suggest
            step = f"write {ip_interface(text).network}"
        raise UsageError(f"--to {text!r} is not a network ({error})", next_step=step) from error


def plan(facts: Facts, scope: Scope) -> Plan | Refusal:
    """The plan for ``scope`` in a namespace. Without changes it says why none are needed."""
    if isinstance(scope, PortScope):
        return _plan_port(facts, scope)
    return _plan_routes(facts, scope)


def key_of(name: RouteName) -> Key:
    """The kernel's key of a named route."""
    source = ip_network(name.source) if name.source else None
    return Key(name.family, ip_network(name.destination), source, name.tos, name.table, name.metric)


def _name(route: Route, interfaces: Mapping[int, str], destination: Network | None = None) -> RouteName:
    key = route.key
    return RouteName(
        family=_family(key.family),
        destination=str(destination or key.destination),
        source=str(key.source) if key.source else None,
        tos=key.tos,
        table=key.table,
        metric=key.metric,
        via=route.via(interfaces),
    )


def _family(number: int) -> Family:
    return 4 if number == 4 else 6


def covers(larger: Network, smaller: Network) -> bool:
    """Whether every address of ``smaller`` is in ``larger``."""
    if isinstance(larger, IPv4Network):
        return isinstance(smaller, IPv4Network) and smaller.subnet_of(larger)
    return isinstance(smaller, IPv6Network) and smaller.subnet_of(larger)


# Routes


def _plan_routes(facts: Facts, scope: RouteScope) -> Plan | Refusal:
    wanted = network(scope.to) if scope.to else None
    theirs = [
        route for route in facts.routes if route.key.table != TABLE_LOCAL and route.protocol != OUR_PROTOCOL
    ]
    unicast = [route for route in theirs if route.type == UNICAST]
    if wanted is None:
        chosen = [route for route in unicast if route.key.destination.prefixlen == 0]
    else:
        chosen = [route for route in unicast if _asked_for(route, wanted)]
    if not chosen:
        return _plan_copies(facts, scope, wanted) if wanted else _no_default_route(facts, unicast)
    learned = [route for route in chosen if route.learned]
    candidates = [route for route in chosen if not route.learned and not route.quickack]
    for route in candidates:
        if len(sharing_key(facts.routes, route.key)) > 1:
            return _ambiguous(facts, route)
    if len(learned) == len(chosen):
        return Refusal(
            reason=f"the {_name(learned[0], facts.interfaces).words} {_LEARNED}",
            consequence=f"{_WITHDRAWN}; nothing was changed",
            next_step="`ackward fix quickack --port N` leaves it alone",
        )
    changes: list[Change] = [RouteQuickack(route=_name(route, facts.interfaces)) for route in candidates]
    notes = [
        f"left out: the {_name(route, facts.interfaces).words} {_LEARNED} ({_WITHDRAWN}; try `--port N`)"
        for route in learned
    ]
    if not changes:
        notes.insert(0, f"{scope.words} have quickack already")
    elif wanted and not any(route.key.destination == wanted for route in chosen):
        notes.append(f"addresses of {wanted} outside these routes are not covered")
    return _as_plan(facts, scope, changes, notes)


def _asked_for(route: Route, wanted: Network) -> bool:
    destination = route.key.destination
    if route.key.family == 6 and covers(_LINK_LOCAL, destination) and not covers(_LINK_LOCAL, wanted):
        return False  # each interface has one of these, all of the same metric, and none leads anywhere
    return covers(wanted, destination)


def _ambiguous(facts: Facts, route: Route) -> Refusal:
    key = route.key
    same = [other.via(facts.interfaces) for other in sharing_key(facts.routes, key)]
    return Refusal(
        reason=f"{len(same)} IPv{key.family} routes to {key.destination} in table {key.table} have the same "
        f"metric {key.metric} ({'; '.join(same)})",
        consequence="the kernel would replace the first and lose a gateway; nothing was changed",
        next_step="give them different metrics or make them one multipath route, or use `--port N`",
    )


def _no_default_route(facts: Facts, unicast: Sequence[Route]) -> Refusal:
    connected = sorted(
        {
            str(route.key.destination)
            for route in unicast
            if not any(hop.gateway for hop in route.next_hops)
            and not (route.key.family == 6 and covers(_LINK_LOCAL, route.key.destination))
        }
    )
    there = ", ".join(connected)
    return Refusal(
        reason=f"the namespace {facts.namespace.name} has no default route",
        next_step=f"name a destination with `--to CIDR`; connected are {there}"
        if connected
        else "give it an address and a route first: it has none",
    )


def _plan_copies(facts: Facts, scope: RouteScope, wanted: Network) -> Plan | Refusal:
    """No route leads into ``wanted`` alone: in each table, a more specific copy of the one that covers it."""
    changes: list[Change] = []
    notes: list[str] = []
    fast = False
    covering: dict[int, list[Route]] = {}
    for route in facts.routes:
        if route.key.table not in (TABLE_LOCAL, *TABLES) and covers(route.key.destination, wanted):
            covering.setdefault(route.key.table, []).append(route)
    for table, routes in sorted(covering.items()):
        # As the kernel chooses: the longest prefix, then the lowest metric, then the order of the dump.
        best = min(routes, key=lambda route: (-route.key.destination.prefixlen, route.key.metric))
        if best.type != UNICAST:
            notes.append(
                f"table {table} does not forward {wanted}: {best.key.destination} is no unicast route"
            )
        elif best.quickack:
            fast = True
        else:
            message = rebuilt(best, quickack=1, protocol=OUR_PROTOCOL, destination=wanted)
            changes.append(
                RouteAdded(
                    route=_name(best, facts.interfaces, wanted),
                    copy_of=_name(best, facts.interfaces).destination,
                    message=message.hex(),
                )
            )
            notes.append(
                f"the new route to {wanted} does not follow later changes of the one to "
                f"{best.key.destination}: undo and apply again then (`--port N` follows by itself)"
            )
            if best.expires:
                notes.append(f"it expires when the route to {best.key.destination} would")
    if changes or fast:
        if not changes:
            notes.insert(0, f"the route that covers {wanted} has quickack already")
        return _as_plan(facts, scope, changes, notes)
    return Refusal(
        reason=f"no route of the namespace {facts.namespace.name} leads to {wanted}"
        + (f" ({'; '.join(notes)})" if notes else ""),
        next_step="`ip route show table all` and `ip -6 route show table all` list those there are",
    )


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
