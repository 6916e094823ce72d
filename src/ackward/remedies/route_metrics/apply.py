"""Metrics on routes: each kind of change made, read back, and taken back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ackward.errors import Refused
from ackward.kernel import routes
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink
from ackward.kernel.route_message import Route
from ackward.model.changes import OUR_PROTOCOL, Metric, RouteAdded, RouteMetric
from ackward.model.plan import Ending, Look, State, Undone
from ackward.remedies import transaction
from ackward.remedies.route_metrics.plan import Routing, key_of

FAMILIES = (4, 6)


def read_routing(netlink: Netlink) -> Routing:
    """The routes of the netlink socket's namespace."""
    return Routing(
        namespace=transaction.identify(netlink.namespace),
        routes=tuple(route for family in FAMILIES for route in routes.dump(netlink, family)),
        interfaces=routes.interfaces(netlink),
    )


class RouteMetrics:
    """The effects on routes, through ``netlink``, which is not closed here."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    def make(self, change: RouteMetric | RouteAdded) -> None:
        """Make the change, verified by reading back; raises :class:`Refused` before anything was touched."""
        match change:
            case RouteMetric():
                before = routes.dump(self._netlink, change.route.family)
                found = routes.sharing_key(before, key_of(change.route))
                if _looked_at(change, found).state is not State.GONE:
                    raise _changed_meanwhile(change.route.words)
                metrics = {change.metric: change.after}
                routes.replace_verified(self._netlink, found[0], before, metrics, doing=f"to {change.words}")
            case RouteAdded():
                self._add(change)

    def look(self, change: RouteMetric | RouteAdded) -> Look:
        """Read the change back."""
        if isinstance(change, RouteMetric):
            return _looked_at(change, self._at(change))
        return self._look_at_copy(change)

    def unmake(self, change: RouteMetric | RouteAdded) -> Undone:
        """Take the change back; of a route that is not ours only what still is as we set it."""
        if isinstance(change, RouteMetric):
            return self._restore(change)
        ending = Ending.UNDONE if self._remove(change) else Ending.NOTHING
        return Undone(ending=ending, words=f"{ending.value}: {change.words}")

    def _set(self, change: RouteMetric | RouteAdded, metrics: dict[Metric, int], doing: str) -> None:
        routes.set_metrics(self._netlink, key_of(change.route), metrics, doing=doing)

    def _add(self, change: RouteAdded) -> None:
        ours = self._ours_at(change)
        if not ours:
            routes.add_new(self._netlink, bytes.fromhex(change.message), doing=f"to {change.words}")
            return
        if any(ours[0].metric(metric) != change.before[metric] for metric in change.metrics):
            raise _changed_meanwhile(change.route.words)
        self._set(change, change.metrics, f"to {change.words}")

    def _remove(self, change: RouteAdded) -> bool:
        """Delete our copy, or only take our metrics off it if another remedy has its own there."""
        ours = self._ours_at(change)
        others = change.before.keys() - change.metrics.keys()
        if not any(route.metric(metric) != change.before[metric] for route in ours for metric in others):
            return self._delete(ours) > 0
        before = {metric: change.before[metric] for metric in change.metrics}
        if all(route.metric(metric) == before[metric] for route in ours for metric in before):
            return False
        self._set(change, before, f"to restore the {change.route.words}")
        return True

    def _restore(self, change: RouteMetric) -> Undone:
        found = self.look(change)
        if found.state is State.CHANGED:
            return Undone(ending=Ending.LEFT, words=f"{Ending.LEFT.value}: {found.words}")
        if found.state is State.GONE:
            return Undone(ending=Ending.NOTHING, words=f"{Ending.NOTHING.value}: {found.words}")
        doing = f"to restore {change.metric} {change.before} on the {change.route.words}"
        self._set(change, {change.metric: change.before}, doing)
        return Undone(ending=Ending.UNDONE, words=f"{Ending.UNDONE.value}: {change.words}")

    def _delete(self, found: Sequence[Route]) -> int:
        return sum(
            routes.delete(self._netlink, route, doing=f"to delete our route to {route.key.destination}")
            for route in found
        )

    def _at(self, change: RouteMetric | RouteAdded) -> list[Route]:
        found = routes.dump(self._netlink, change.route.family)
        return routes.sharing_key(found, key_of(change.route))

    def _ours_at(self, change: RouteAdded) -> list[Route]:
        return [route for route in self._at(change) if route.protocol == OUR_PROTOCOL]

    def _look_at_copy(self, change: RouteAdded) -> Look:
        name = change.route
        ours = self._ours_at(change)
        if not ours:
            return looked(State.GONE, name.words, "is gone")
        values = {metric: ours[0].metric(metric) for metric in change.metrics}
        if values != change.metrics:
            if all(change.before[metric] == value for metric, value in values.items()):
                return looked(State.GONE, name.words, f"is there without {change.metric_words}")
            return looked(State.CHANGED, name.words, f"has lost its {change.metric_words}")
        original = key_of(name.model_copy(update={"destination": change.copy_of}))
        copied = routes.sharing_key(routes.dump(self._netlink, name.family), original)
        if not any(route.next_hops == ours[0].next_hops for route in copied):
            return looked(State.CHANGED, name.words, f"no longer leads where {change.copy_of} does")
        return looked(State.IN_FORCE, name.words, f"is there with {change.metric_words}")


def _looked_at(change: RouteMetric, found: Sequence[Route]) -> Look:
    """What the routes say that have the changed one's key."""
    metric = change.metric
    words = change.route.model_copy(update={"via": ""}).words  # it may lead elsewhere by now
    if not found:
        return looked(State.CHANGED, words, "is gone: someone removed it")
    if len(found) > 1:
        return looked(State.CHANGED, words, "has a twin of the same metric by now")
    value = found[0].metric(metric)
    if value == change.after:
        return looked(State.IN_FORCE, words, f"has {metric} {value}")
    if value == change.before:
        return looked(State.GONE, words, f"has {metric} {value or 'off'}, as before")
    return looked(State.CHANGED, words, f"has {metric} {value}, which we did not set")


def looked(state: State, what: str, words: str) -> Look:
    """What was seen of one change, in words."""
    return Look(state=state, words=f"{what} {words}")


def _changed_meanwhile(what: str) -> Refused:
    return Refused(
        f"the {what} changed between plan and apply",
        consequence="nothing was changed",
        next_step="run the command again",
    )


def sweep_routes(
    netlink: Netlink, namespace: Namespace, metrics: Iterable[Metric]
) -> tuple[list[str], list[str]]:
    """Delete all routes of our protocol number; gives them, and the routes of others that have ``metrics``."""
    removed: list[str] = []
    suspects: list[str] = []
    for family in FAMILIES:
        for route in routes.dump(netlink, family):
            words = (
                f"{namespace.name}: IPv{family} route to {route.key.destination} in table {route.key.table}"
            )
            if route.protocol != OUR_PROTOCOL:
                found = [(metric, route.metric(metric)) for metric in metrics]
                suspects += [f"{metric} {value} on the {words}" for metric, value in found if value]
            elif routes.delete(netlink, route, doing=f"to delete the {words}"):
                removed.append(words)
    return removed, suspects
