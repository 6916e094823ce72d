"""Which routes a remedy changes. Pure: the namespace's routes and a request in, changes or a refusal out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import get_args

from ackward.errors import UsageError
from ackward.kernel.route_message import TABLE_LOCAL, UNICAST, Key, Network, Route, rebuilt
from ackward.kernel.routes import sharing_key
from ackward.model.changes import OUR_PROTOCOL, Change, Family, Metric, RouteAdded, RouteMetric, RouteName
from ackward.model.plan import NamespaceIdentity, Plan, Receipt, Refusal

METRICS: tuple[Metric, ...] = get_args(Metric)

# Measured: a replaced one outlives an advertisement with lifetime 0. It has lost RTF_ADDRCONF, for which
# rt6_get_dflt_router() looks.
_LEARNED = "was learned by the kernel from a router advertisement"
_WITHDRAWN = "a changed one would not be withdrawn when the router says so"

_LINK_LOCAL = ip_network("fe80::/10")


@dataclass(frozen=True)
class Routing:
    """A namespace's routes of both families, and its interfaces' names by number."""

    namespace: NamespaceIdentity
    routes: tuple[Route, ...]
    interfaces: Mapping[int, str]


@dataclass(frozen=True)
class Request:
    """What a remedy wants of the routes ``to`` (a CIDR), or of all default routes, or of ``every`` one.

    ``lacking`` gives the metrics that a route would have to change, none if it is as it should be. The rest are
    words: ``scope`` is what is asked for, ``state`` what it is to have, ``aside`` the option that leaves a route
    alone which must not be replaced, ``follows`` an option that follows later changes of routes by itself.
    """

    remedy: str
    to: str | None
    lacking: Callable[[Route], Mapping[Metric, int]]
    scope: str
    state: str
    aside: str
    follows: str | None = None
    every: bool = False


@dataclass(frozen=True)
class Planned:
    """The changes; when there are none, the first of the ``notes`` says why."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...]


def network(text: str, option: str = "--to") -> Network:
    """The network that ``option`` names; raises :class:`UsageError`."""
    try:
        return ip_network(text)
    except ValueError as error:
        step = "write it as 10.0.0.0/8 or fd00::/8"
        with suppress(ValueError):  # not even an address: there is nothing better to suggest
            step = f"write {ip_interface(text).network}"
        raise UsageError(
            f"{option} {text!r} is not a network ({error})",
            consequence="nothing was changed",
            next_step=step,
        ) from error


def key_of(name: RouteName) -> Key:
    """The kernel's key of a named route."""
    source = ip_network(name.source) if name.source else None
    return Key(name.family, ip_network(name.destination), source, name.tos, name.table, name.metric)


def covers(larger: Network, smaller: Network) -> bool:
    """Whether every address of ``smaller`` is in ``larger``."""
    if isinstance(larger, IPv4Network):
        return isinstance(smaller, IPv4Network) and smaller.subnet_of(larger)
    return isinstance(smaller, IPv6Network) and smaller.subnet_of(larger)


def plan_routes(routing: Routing, request: Request) -> Planned | Refusal:
    """The changes that give the routes what the request wants, in all tables but ``local``."""
    wanted = network(request.to) if request.to else None
    theirs = [
        route for route in routing.routes if route.key.table != TABLE_LOCAL and route.protocol != OUR_PROTOCOL
    ]
    unicast = [route for route in theirs if route.type == UNICAST]
    if wanted is not None:
        chosen = [route for route in unicast if _asked_for(route, wanted)]
    elif request.every:
        chosen = [route for route in unicast if not _link_local(route)]
    else:
        chosen = [route for route in unicast if route.key.destination.prefixlen == 0]
    if not chosen:
        return _Copies(routing, request, wanted).plan() if wanted else _no_default_route(routing, unicast)
    learned = [route for route in chosen if route.learned]
    candidates = [route for route in chosen if not route.learned and request.lacking(route)]
    for route in candidates:
        if len(sharing_key(routing.routes, route.key)) > 1:
            return _ambiguous(routing, request, route)
    if len(learned) == len(chosen):
        return Refusal(
            reason=f"the {_name(learned[0], routing.interfaces).words} {_LEARNED}",
            consequence=f"{_WITHDRAWN}; nothing was changed",
            next_step=f"`ackward fix {request.remedy} {request.aside}` leaves it alone",
        )
    changes: list[Change] = [
        RouteMetric(
            route=_name(route, routing.interfaces), metric=metric, before=route.metric(metric), after=value
        )
        for route in candidates
        for metric, value in request.lacking(route).items()
    ]
    notes = [
        f"left out: the {_name(route, routing.interfaces).words} {_LEARNED} "
        f"({_WITHDRAWN}; try `{request.aside}`)"
        for route in learned
    ]
    if wanted and not any(route.key.destination == wanted for route in chosen):
        rest = _Copies(routing, request, wanted).plan()
        if isinstance(rest, Refusal):
            notes.append(f"addresses of {wanted} outside these routes are not covered: {rest.reason}")
        elif rest.changes:
            changes += rest.changes
            notes += rest.notes
    if not changes:
        notes.insert(0, f"{request.scope} have {request.state} already")
    notes += _beside(routing, request, theirs, wanted)
    return Planned(tuple(changes), tuple(notes))


def _beside(routing: Routing, request: Request, theirs: Sequence[Route], wanted: Network | None) -> list[str]:
    """Copies that a remedy made, inside what is asked for: they do not follow the routes that are changed."""
    tables = {(route.key.family, route.key.table) for route in theirs}
    return [
        f"the route to {route.key.destination} that a remedy made before is left as it is"
        for route in routing.routes
        if route.protocol == OUR_PROTOCOL
        and (route.key.family, route.key.table) in tables
        and (wanted is None or covers(wanted, route.key.destination))
        and request.lacking(route)
    ]


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


def _asked_for(route: Route, wanted: Network) -> bool:
    if _link_local(route) and not covers(_LINK_LOCAL, wanted):
        return False
    return covers(wanted, route.key.destination)


def _link_local(route: Route) -> bool:
    """Each interface has one of these, all of the same metric, and none leads anywhere."""
    return covers(_LINK_LOCAL, route.key.destination)


def _ambiguous(routing: Routing, request: Request, route: Route) -> Refusal:
    key = route.key
    same = [other.via(routing.interfaces) for other in sharing_key(routing.routes, key)]
    return Refusal(
        reason=f"{len(same)} IPv{key.family} routes to {key.destination} in table {key.table} have the same "
        f"metric {key.metric} ({'; '.join(same)})",
        consequence="the kernel would replace the first and lose a gateway; nothing was changed",
        next_step=f"give them different metrics or make them one multipath route, or use `{request.aside}`",
    )


def _no_default_route(routing: Routing, unicast: Sequence[Route]) -> Refusal:
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
        reason=f"the namespace {routing.namespace.name} has no default route",
        next_step=f"name a destination with `--to CIDR`; connected are {there}"
        if connected
        else "give it an address and a route first: it has none",
    )


def already_set(plan: Plan, receipts: Iterable[Receipt]) -> Refusal | None:
    """Why not, if another receipt has set a metric that the plan would set again: its undo could not restore it."""
    wanted = {_metric(change) for change in plan.changes if isinstance(change, RouteMetric)}
    for receipt in receipts:
        same_place = receipt.namespace.inode == plan.namespace.inode
        if not same_place or (receipt.remedy, receipt.scope) == (plan.remedy, plan.scope):
            continue
        for change in receipt.changes:
            if isinstance(change, RouteMetric) and _metric(change) in wanted:
                return Refusal(
                    reason=f"{receipt.id} has set {change.metric} {change.after} on the {change.route.words}",
                    next_step=f"`ackward undo {receipt.id}`, then apply this",
                )
    return None


def _metric(change: RouteMetric) -> tuple[Key, Metric]:
    return key_of(change.route), change.metric


class _Copies:
    """For what no route into ``wanted`` alone covers: in each table, a more specific copy of the one that does."""

    def __init__(self, routing: Routing, request: Request, wanted: Network) -> None:
        self._routing, self._request, self._wanted = routing, request, wanted
        self._changes: list[Change] = []
        self._notes: list[str] = []

    def plan(self) -> Planned | Refusal:
        wanted, request = self._wanted, self._request
        covering: dict[int, list[Route]] = {}
        ours: dict[int, list[Route]] = {}
        for route in self._routing.routes:
            if route.key.table != TABLE_LOCAL and covers(route.key.destination, wanted):
                found = ours if route.protocol == OUR_PROTOCOL else covering
                found.setdefault(route.key.table, []).append(route)
        satisfied = False
        for table, routes in sorted(covering.items()):
            best, copy = _best(routes), _best(ours.get(table, []))
            assert best is not None
            if best.type != UNICAST:
                self._notes.append(
                    f"table {table} does not forward {wanted}: {best.key.destination} is no unicast route"
                )
            elif not request.lacking(_longer(best, copy)):
                satisfied = True
            elif copy and (refusal := self._cannot_share(best, copy)):
                return refusal
            else:
                self._copy(best)
        if not self._changes and not satisfied:
            why = f" ({'; '.join(self._notes)})" if self._notes else ""
            return Refusal(
                reason=f"no route of the namespace {self._routing.namespace.name} leads to {wanted}{why}",
                next_step="`ip route show table all` and `ip -6 route show table all` list those there are",
            )
        if not self._changes:
            self._notes.insert(0, f"the route that covers {wanted} has {request.state} already")
        return Planned(tuple(self._changes), tuple(self._notes))

    def _cannot_share(self, best: Route, copy: Route) -> Refusal | None:
        """Why a copy that a remedy made before cannot take these metrics too, if it cannot."""
        metrics = self._request.lacking(best)
        set_already = [
            f"{metric} {copy.metric(metric)}"
            for metric in metrics
            if copy.metric(metric) != best.metric(metric)
        ]
        if copy.key.destination == self._wanted and metrics and not set_already:
            return None
        has = " with " + " and ".join(set_already) if set_already else ""
        return Refusal(
            reason=f"a remedy made the route to {copy.key.destination} in table {copy.key.table}{has}",
            next_step="`ackward status` names its receipt: undo that first"
            + ("" if copy.key.destination == self._wanted else f", or say `--to {copy.key.destination}`"),
        )

    def _copy(self, best: Route) -> None:
        wanted, request = self._wanted, self._request
        metrics = dict(request.lacking(best))
        message = rebuilt(best, metrics=metrics, protocol=OUR_PROTOCOL, destination=wanted)
        self._changes.append(
            RouteAdded(
                route=_name(best, self._routing.interfaces, wanted),
                copy_of=str(best.key.destination),
                metrics=metrics,
                before={metric: best.metric(metric) for metric in METRICS},
                message=message.hex(),
            )
        )
        follows = f" (`{request.follows}` follows by itself)" if request.follows else ""
        self._notes.append(
            f"the new route to {wanted} does not follow later changes of the one to "
            f"{best.key.destination}: undo and apply again then{follows}"
        )
        if best.expires:
            self._notes.append(f"it expires when the route to {best.key.destination} would")


def _best(routes: Sequence[Route]) -> Route | None:
    # As the kernel chooses: the longest prefix, then the lowest metric, then the order of the dump.
    ranked = sorted(routes, key=lambda route: (-route.key.destination.prefixlen, route.key.metric))
    return ranked[0] if ranked else None


def _longer(route: Route, copy: Route | None) -> Route:
    """The one of the two that the kernel takes."""
    longer = copy is not None and copy.key.destination.prefixlen > route.key.destination.prefixlen
    return copy if copy is not None and longer else route
