"""Quickack's effects on the kernel: each kind of change made, read back, and taken back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ackward.errors import Refused
from ackward.kernel import routes, rules
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink
from ackward.kernel.route_message import Route
from ackward.kernel.rules import Rule
from ackward.model.changes import (
    OUR_PROTOCOL,
    Change,
    FollowerStarted,
    RouteAdded,
    RouteQuickack,
    RuleAdded,
    TableMirrored,
)
from ackward.model.plan import Ending, Look, Plan, Refusal, State, Undone
from ackward.model.scopes import Scope
from ackward.remedies import transaction
from ackward.remedies.quickack import follower, mirror
from ackward.remedies.quickack import plan as planning
from ackward.remedies.quickack.follower import Follower
from ackward.remedies.quickack.plan import Facts, key_of

FAMILIES = (4, 6)


def facts(namespace: Namespace) -> Facts:
    """What a plan needs to know of a namespace."""
    with Netlink(namespace) as netlink:
        return Facts(
            namespace=transaction.identify(namespace),
            routes=tuple(route for family in FAMILIES for route in routes.dump(netlink, family)),
            rules=tuple(rule for family in FAMILIES for rule in rules.dump(netlink, family)),
            interfaces=routes.interfaces(netlink),
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._netlink.close()

    def make(self, change: Change) -> Change:
        """Make the change, verified by reading back."""
        match change:
            case RouteQuickack():
                if self.look(change).state is not State.GONE:
                    raise Refused(
                        f"the {change.route.words} changed between plan and apply",
                        consequence="nothing was changed",
                        next_step="run the command again",
                    )
                routes.set_quickack(
                    self._netlink, key_of(change.route), change.after, doing=f"to {change.words}"
                )
            case RouteAdded():
                routes.add_new(self._netlink, bytes.fromhex(change.message), doing=f"to {change.words}")
            case TableMirrored():
                self._require_unused(change)
                mirror.synchronise(self._netlink, change.family, change.table)
            case RuleAdded():
                rules.add(self._netlink, _rule(change))
            case FollowerStarted():
                started = follower.start(self._namespace, change.table, self._receipt)
                return change.model_copy(update={"pid": started.pid, "start_time": started.start_time})
        return change

    def look(self, change: Change) -> Look:
        """Read the change back."""
        match change:
            case RouteQuickack():
                return self._look_at_route(change)
            case RouteAdded():
                return self._look_at_copy(change)
            case TableMirrored():
                return self._look_at_table(change)
            case RuleAdded():
                present = any(
                    rules.same(rule, _rule(change)) for rule in rules.dump(self._netlink, change.family)
                )
                words = f"IPv{change.family} rule for {change.selector} {change.port}"
                return _look(
                    State.IN_FORCE if present else State.GONE, words, "is there" if present else "is gone"
                )
            case FollowerStarted():
                known = _known(change)
                words = f"follower of table {change.table}"
                if known and follower.lives(known):
                    return _look(State.IN_FORCE, words, f"is alive (pid {known.pid})")
                return _look(State.GONE, words, "is not running: the table does not follow main")

    def unmake(self, change: Change) -> Undone:
        """Take the change back; of a route that is not ours only what still is as we set it."""
        match change:
            case RouteQuickack():
                return self._restore(change)
            case RouteAdded():
                undone = (
                    self._delete([route for route in self._at(change) if route.protocol == OUR_PROTOCOL]) > 0
                )
            case TableMirrored():
                undone = mirror.clear(self._netlink, change.family, change.table) > 0
            case RuleAdded():
                undone = rules.delete(self._netlink, _rule(change))
            case FollowerStarted():
                undone = self._stop(change)
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

    def _restore(self, change: RouteQuickack) -> Undone:
        found = self.look(change)
        if found.state is State.CHANGED:
            return Undone(ending=Ending.LEFT, words=f"{Ending.LEFT.value}: {found.words}")
        if found.state is State.GONE:
            return Undone(ending=Ending.NOTHING, words=f"{Ending.NOTHING.value}: {found.words}")
        doing = f"to restore quickack {change.before} on the {change.route.words}"
        routes.set_quickack(self._netlink, key_of(change.route), change.before, doing=doing)
        return Undone(ending=Ending.UNDONE, words=f"{Ending.UNDONE.value}: {change.words}")

    def _delete(self, found: Sequence[Route]) -> int:
        return sum(
            routes.delete(self._netlink, route, doing=f"to delete our route to {route.key.destination}")
            for route in found
        )

    def _stop(self, change: FollowerStarted) -> bool:
        known = _known(change)
        stopped = known is not None and follower.stop(known)
        # Killed between the start and the note of its PID: its command line names the receipt.
        for lost in follower.running(self._receipt):
            stopped |= follower.stop(lost)
        return stopped

    def _at(self, change: RouteQuickack | RouteAdded) -> list[Route]:
        found = routes.dump(self._netlink, change.route.family)
        return routes.sharing_key(found, key_of(change.route))

    def _look_at_route(self, change: RouteQuickack) -> Look:
        found = self._at(change)
        words = change.route.model_copy(update={"via": ""}).words  # it may lead elsewhere by now
        if not found:
            return _look(State.CHANGED, words, "is gone: someone removed it")
        if len(found) > 1:
            return _look(State.CHANGED, words, "has a twin of the same metric by now")
        value = found[0].quickack
        if value == change.after:
            return _look(State.IN_FORCE, words, f"has quickack {value}")
        if value == change.before:
            return _look(State.GONE, words, f"has quickack {value or 'off'}, as before")
        return _look(State.CHANGED, words, f"has quickack {value}, which we did not set")

    def _look_at_copy(self, change: RouteAdded) -> Look:
        name = change.route
        ours = [route for route in self._at(change) if route.protocol == OUR_PROTOCOL]
        if not ours:
            return _look(State.GONE, name.words, "is gone")
        if ours[0].quickack != 1:
            return _look(State.CHANGED, name.words, "has lost its quickack")
        original = key_of(name.model_copy(update={"destination": change.copy_of}))
        copied = routes.sharing_key(routes.dump(self._netlink, name.family), original)
        if not any(route.next_hops == ours[0].next_hops for route in copied):
            return _look(State.CHANGED, name.words, f"no longer leads where {change.copy_of} does")
        return _look(State.IN_FORCE, name.words, "is there with quickack 1")

    def _look_at_table(self, change: TableMirrored) -> Look:
        found = routes.dump(self._netlink, change.family)
        words = f"IPv{change.family} table {change.table}"
        present = [
            route for route in found if route.key.table == change.table and route.protocol == OUR_PROTOCOL
        ]
        difference = mirror.difference(found, change.table)
        if not difference:
            return _look(State.IN_FORCE, words, f"mirrors main ({len(present)} routes)")
        if not present:
            return _look(State.GONE, words, "is empty")
        apart = len(difference.missing) + len(difference.surplus)
        return _look(State.PARTLY, words, f"differs from main in {apart} routes")


def _look(state: State, what: str, words: str) -> Look:
    return Look(state=state, words=f"{what} {words}")


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


def _known(change: FollowerStarted) -> Follower | None:
    if change.pid is None or change.start_time is None:
        return None
    return Follower(change.pid, change.start_time)


def sweep(namespace: Namespace, directory: Path) -> transaction.Swept:
    """Remove rules and routes of our protocol number from a namespace; end the followers of ``directory``.

    Suspects are the routes of others that have quickack: a lost receipt may have spoken of them.
    """
    removed = [f"process {lost.pid}" for lost in follower.running(directory) if follower.stop(lost)]
    suspects: list[str] = []
    with Netlink(namespace) as netlink:
        for family in FAMILIES:
            where = f"{namespace.name}: IPv{family}"
            ours = [rule for rule in rules.dump(netlink, family) if rule.protocol == OUR_PROTOCOL]
            removed += [f"{where} rule {rule.words}" for rule in ours if rules.delete(netlink, rule)]
            for route in routes.dump(netlink, family):
                words = f"{where} route to {route.key.destination} in table {route.key.table}"
                if route.protocol != OUR_PROTOCOL:
                    suspects += [f"quickack {route.quickack} on the {words}"] if route.quickack else []
                elif routes.delete(netlink, route, doing=f"to delete the {words}"):
                    removed.append(words)
    return transaction.Swept(tuple(removed), tuple(suspects))


REMEDY = transaction.Remedy(planning.NAME, plan, Quickack, sweep)
