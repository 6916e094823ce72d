"""A detour's effects on the kernel: its mirrored table, the rules that lead there, and its follower."""

from __future__ import annotations

from pathlib import Path

from ackward.errors import Refused
from ackward.kernel import background, mark_rules, routes, rules
from ackward.kernel.background import Process
from ackward.kernel.mark_rules import MarkRule
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink
from ackward.kernel.rules import Rule
from ackward.model.changes import OUR_PROTOCOL, Change, FollowerStarted, RuleAdded, TableMirrored
from ackward.model.pins import MarkRuleAdded
from ackward.model.plan import Ending, Look, State, Undone
from ackward.remedies.detour import follower, mirror
from ackward.remedies.detour.plan import Facts
from ackward.remedies.route_metrics.apply import FAMILIES, looked, read_routing


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


class Rerouting:
    """The effects through ``netlink``, which is not closed here, for the receipt in the file ``receipt``."""

    def __init__(self, netlink: Netlink, receipt: Path) -> None:
        self._netlink = netlink
        self._receipt = receipt

    def make(self, change: Change) -> Change:
        """Make the change; a follower gives it back with its PID."""
        match change:
            case TableMirrored():
                self._require_unused(change)
                mirror.synchronise(self._netlink, change.family, change.table)
            case RuleAdded():
                rules.add(self._netlink, _port_rule(change))
            case MarkRuleAdded():
                mark_rules.add(self._netlink, _mark_rule(change))
            case FollowerStarted():
                started = follower.start(self._netlink.namespace, change.table, self._receipt)
                return change.model_copy(update={"pid": started.pid, "start_time": started.start_time})
            case _:
                raise TypeError(change)
        return change

    def look(self, change: Change) -> Look:
        """Read the change back."""
        match change:
            case TableMirrored():
                return self._look_at_table(change)
            case RuleAdded():
                ours = _port_rule(change)
                present = any(rules.same(rule, ours) for rule in rules.dump(self._netlink, change.family))
                return _rule_looked(f"IPv{change.family} rule for {change.selector} {change.port}", present)
            case MarkRuleAdded():
                present = _mark_rule(change) in mark_rules.dump(self._netlink, change.family)
                return _rule_looked(f"IPv{change.family} rule for mark {change.bit:#x}", present)
            case FollowerStarted():
                words = f"follower of table {change.table}"
                if background.lives(_follower(change)):
                    return looked(State.IN_FORCE, words, f"is alive (pid {change.pid})")
                return looked(State.GONE, words, "is not running: the table does not follow main")
            case _:
                raise TypeError(change)

    def unmake(self, change: Change) -> Undone:
        """Take the change back."""
        match change:
            case TableMirrored():
                undone = mirror.clear(self._netlink, change.family, change.table) > 0
            case RuleAdded():
                undone = rules.delete(self._netlink, _port_rule(change))
            case MarkRuleAdded():
                undone = mark_rules.delete(self._netlink, _mark_rule(change))
            case FollowerStarted():
                undone = background.stop_all(_follower(change), follower.running(self._receipt))
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
            raise taken_meanwhile(f"the table {change.table}")

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


def taken_meanwhile(what: str) -> Refused:
    """Why a change is not made although it was planned."""
    return Refused(
        f"{what} was taken between plan and apply",
        consequence="nothing was changed",
        next_step="run the command again",
    )


def _rule_looked(words: str, present: bool) -> Look:
    return looked(State.IN_FORCE if present else State.GONE, words, "is there" if present else "is gone")


def _port_rule(change: RuleAdded) -> Rule:
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


def _mark_rule(change: MarkRuleAdded) -> MarkRule:
    return MarkRule(
        family=change.family,
        preference=change.preference,
        mark=change.bit,
        mask=change.bit,
        table=change.table,
        protocol=OUR_PROTOCOL,
    )


def _follower(change: FollowerStarted) -> Process | None:
    return background.noted(change.pid, change.start_time)


def sweep_rules(netlink: Netlink, namespace: Namespace) -> list[str]:
    """Remove all rules of our protocol number; gives them in words."""
    removed: list[str] = []
    for family in FAMILIES:
        where = f"{namespace.name}: IPv{family} rule"
        marked = [rule for rule in mark_rules.dump(netlink, family) if rule.protocol == OUR_PROTOCOL]
        removed += [f"{where} for mark {rule.mark:#x}" for rule in marked if mark_rules.delete(netlink, rule)]
        ours = [rule for rule in rules.dump(netlink, family) if rule.protocol == OUR_PROTOCOL]
        removed += [f"{where} {rule.words}" for rule in ours if rules.delete(netlink, rule)]
    return removed
