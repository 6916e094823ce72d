"""Quickack's effects on the kernel: each kind of change made, read back, and taken back."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.errors import Refused
from ackward.kernel import background, routes, rules
from ackward.kernel.background import Process
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink
from ackward.kernel.rules import Rule
from ackward.model.changes import (
    OUR_PROTOCOL,
    Change,
    FollowerStarted,
    RouteAdded,
    RouteMetric,
    RuleAdded,
    TableMirrored,
)
from ackward.model.plan import Ending, Look, Plan, Refusal, State, Undone
from ackward.model.scopes import Scope
from ackward.remedies import transaction
from ackward.remedies.quickack import follower, mirror
from ackward.remedies.quickack import plan as planning
from ackward.remedies.quickack.plan import Facts
from ackward.remedies.route_metrics.apply import FAMILIES, RouteMetrics, looked, read_routing, sweep_routes


def facts(namespace: Namespace) -> Facts:
    """What a plan needs to know of a namespace."""
    with Netlink(namespace) as netlink:
        routing = read_routing(netlink)
        return Facts(
            namespace=routing.namespace,
            routes=routing.routes,
            rules=tuple(rule for family in FAMILIES for rule in rules.dump(netlink, family)),
            interfaces=routing.interfaces,
        )


def plan(namespace: Namespace, scope: Scope) -> Plan | Refusal:
    """What quickack would change in ``namespace``; reads only."""
    return planning.plan(facts(namespace), scope)


class Quickack:
    """The effects, inside ``namespace``, for the receipt in the file ``receipt``."""

    def __init__(self, namespace: Namespace, receipt: Path) -> None:
        self._namespace = namespace
        self._receipt = receipt
        self._netlink = Netlink(namespace)
        self._routes = RouteMetrics(self._netlink)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._netlink.close()

    def make(self, change: Change) -> Change:
        """Make the change, verified by reading back."""
        match change:
            case RouteMetric() | RouteAdded():
                self._routes.make(change)
            case TableMirrored():
                self._require_unused(change)
                mirror.synchronise(self._netlink, change.family, change.table)
            case RuleAdded():
                rules.add(self._netlink, _rule(change))
            case FollowerStarted():
                started = follower.start(self._namespace, change.table, self._receipt)
                return change.model_copy(update={"pid": started.pid, "start_time": started.start_time})
            case _:
                raise TypeError(change)
        return change

    def look(self, change: Change) -> Look:
        """Read the change back."""
        match change:
            case RouteMetric() | RouteAdded():
                return self._routes.look(change)
            case TableMirrored():
                return self._look_at_table(change)
            case RuleAdded():
                present = any(
                    rules.same(rule, _rule(change)) for rule in rules.dump(self._netlink, change.family)
                )
                words = f"IPv{change.family} rule for {change.selector} {change.port}"
                return looked(
                    State.IN_FORCE if present else State.GONE, words, "is there" if present else "is gone"
                )
            case FollowerStarted():
                known = _known(change)
                words = f"follower of table {change.table}"
                if known and background.lives(known):
                    return looked(State.IN_FORCE, words, f"is alive (pid {known.pid})")
                return looked(State.GONE, words, "is not running: the table does not follow main")
            case _:
                raise TypeError(change)

    def unmake(self, change: Change) -> Undone:
        """Take the change back; of a route that is not ours only what still is as we set it."""
        match change:
            case RouteMetric() | RouteAdded():
                return self._routes.unmake(change)
            case TableMirrored():
                undone = mirror.clear(self._netlink, change.family, change.table) > 0
            case RuleAdded():
                undone = rules.delete(self._netlink, _rule(change))
            case FollowerStarted():
                undone = self._stop(change)
            case _:
                raise TypeError(change)
        ending = Ending.UNDONE if undone else Ending.NOTHING
        return Undone(ending=ending, words=f"{ending.value}: {change.words}")

    def _require_unused(self, change: TableMirrored) -> None:
        """Two plans made at once name the same free table; undo of the one would empty the other's."""
        found = routes.dump(self._netlink, change.family)
        all_rules = [rule for family in FAMILIES for rule in rules.dump(self._netlink, family)]
        used = [route.key.table for route in found] + [rule.table for rule in all_rules]
        if change.table in used:
            raise Refused(
                f"the table {change.table} was taken between plan and apply",
                consequence="nothing was changed",
                next_step="run the command again",
            )

    def _stop(self, change: FollowerStarted) -> bool:
        known = _known(change)
        stopped = known is not None and background.stop(known)
        # Killed between the start and the note of its PID: its command line names the receipt.
        for lost in follower.running(self._receipt):
            stopped |= background.stop(lost)
        return stopped

    def _look_at_table(self, change: TableMirrored) -> Look:
        found = routes.dump(self._netlink, change.family)
        words = f"IPv{change.family} table {change.table}"
        present = [
            route for route in found if route.key.table == change.table and route.protocol == OUR_PROTOCOL
        ]
        difference = mirror.difference(found, change.table)
        if not difference:
            return looked(State.IN_FORCE, words, f"mirrors main ({len(present)} routes)")
        if not present:
            return looked(State.GONE, words, "is empty")
        apart = len(difference.missing) + len(difference.surplus)
        return looked(State.PARTLY, words, f"differs from main in {apart} routes")


def _rule(change: RuleAdded) -> Rule:
    port = {change.selector: change.port}
    return Rule(
        family=change.family,
        preference=change.preference,
        table=change.table,
        protocol=OUR_PROTOCOL,
        sport=port.get("sport"),
        dport=port.get("dport"),
        selectors=f"ipproto tcp {change.selector} {change.port}",
    )


def _known(change: FollowerStarted) -> Process | None:
    if change.pid is None or change.start_time is None:
        return None
    return Process(change.pid, change.start_time)


def sweep(namespace: Namespace, directory: Path) -> transaction.Swept:
    """Remove rules and routes of our protocol number from a namespace; end the followers of ``directory``.

    Suspects are the routes of others that have quickack: a lost receipt may have spoken of them.
    """
    removed = [f"process {lost.pid}" for lost in follower.running(directory) if background.stop(lost)]
    with Netlink(namespace) as netlink:
        for family in FAMILIES:
            where = f"{namespace.name}: IPv{family}"
            ours = [rule for rule in rules.dump(netlink, family) if rule.protocol == OUR_PROTOCOL]
            removed += [f"{where} rule {rule.words}" for rule in ours if rules.delete(netlink, rule)]
        deleted, suspects = sweep_routes(netlink, namespace, ["quickack"])
    return transaction.Swept((*removed, *deleted), tuple(suspects))


REMEDY = transaction.Remedy(planning.NAME, plan, Quickack, sweep)
