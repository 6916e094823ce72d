"""A way round the table main, through a mirror of it that has quickack: where its table and rules can stand. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ackward.kernel.route_message import TABLE_LOCAL, TABLE_MAIN, UNICAST, Route
from ackward.kernel.rule_message import TO_TABLE
from ackward.kernel.rules import Rule
from ackward.model.changes import OUR_PROTOCOL, Change, Family, FollowerStarted, TableMirrored
from ackward.model.plan import NamespaceIdentity, Refusal

#: Numbers for mirrored tables: ours by the same byte as our protocol, far from what others number by hand.
TABLES = range(OUR_PROTOCOL << 8, (OUR_PROTOCOL << 8) + 256)


@dataclass(frozen=True)
class Facts:
    """A namespace's routing: the routes and rules of both families, and its interfaces' names by number."""

    namespace: NamespaceIdentity
    routes: tuple[Route, ...]
    rules: tuple[Rule, ...]
    interfaces: Mapping[int, str]

    @property
    def main_has_quickack(self) -> bool:
        """Whether no detour is needed: every route of main has quickack already."""
        main = [route for route in self.routes if route.key.table == TABLE_MAIN and route.type == UNICAST]
        return bool(main) and all(route.quickack for route in main)


@dataclass(frozen=True)
class Place:
    """Where a rule of one family can stand: directly before the one that leads to main."""

    family: Family
    preference: int


@dataclass(frozen=True)
class Detour:
    """A free table, the place of our rules in each family that is there, and what does not come that way."""

    table: int
    places: tuple[Place, ...]
    notes: tuple[str, ...]

    def changes(self, rules: Sequence[Change]) -> tuple[Change, ...]:
        """All that the detour needs. The rules publish the table: no packet meets one that is not filled."""
        tables = [TableMirrored(family=place.family, table=self.table) for place in self.places]
        return (*tables, *rules, FollowerStarted(table=self.table))


def detour(facts: Facts, *, otherwise: str) -> Detour | Refusal:
    """The way for traffic that rules of ours pick out; ``otherwise`` says what else would do."""
    table = free_table(facts)
    if table is None:
        return Refusal(
            reason=f"all routing tables from {TABLES.start} to {TABLES.stop - 1} are in use",
            next_step="`ackward undo --all` clears those of ours",
        )
    places: list[Place] = []
    notes: list[str] = []
    families: tuple[Family, ...] = (4, 6)
    for family in families:
        own = [rule for rule in facts.rules if rule.family == family]
        if not own:
            notes.append(f"IPv{family} is not there and left out")
            continue
        main = main_rule(own, family)
        if main is None:
            return Refusal(
                reason=f"there is no IPv{family} rule `from all lookup main` that ours could precede",
                next_step=otherwise,
            )
        for rule in _before(own, main):
            if _takes_all(rule, facts.routes):
                return Refusal(
                    reason=f"the IPv{family} rule {rule.words} takes the traffic before ours would see it",
                    next_step=f"{otherwise}: it changes that rule's table too",
                )
            notes.append(f"traffic that the IPv{family} rule {rule.words} takes does not come to ours")
        places.append(Place(family, main.preference - 1))
    if not places:
        return Refusal(
            reason="this kernel has no policy routing rules (CONFIG_IP_MULTIPLE_TABLES)", next_step=otherwise
        )
    notes.append(
        "connections that stay inside the namespace (loopback) take the table local, which is left alone"
    )
    return Detour(table, tuple(places), tuple(notes))


def free_table(facts: Facts, first: int = 0) -> int | None:
    """A number for a mirrored table that nobody uses, looked for from the ``first`` on and round."""
    taken = {route.key.table for route in facts.routes} | {rule.table for rule in facts.rules}
    return next((table for table in (*TABLES[first:], *TABLES[:first]) if table not in taken), None)


def main_rule(rules: Iterable[Rule], family: Family) -> Rule | None:
    """The rule that leads to main for all traffic, if one of ours can stand before it."""
    for rule in rules:
        narrow = rule.selective or rule.inverted or rule.suppressing
        if (rule.family, rule.action, rule.table) == (family, TO_TABLE, TABLE_MAIN) and not narrow:
            return rule if rule.preference > 0 else None
    return None


def _before(rules: Iterable[Rule], main: Rule) -> list[Rule]:
    """Rules that are consulted before ours, but for the table local, our own, and what can give no route."""
    return [
        rule
        for rule in rules
        if rule.preference < main.preference and rule.protocol != OUR_PROTOCOL and rule.table != TABLE_LOCAL
    ]


def _takes_all(rule: Rule, routes: Iterable[Route]) -> bool:
    """Whether a rule that matches (nearly) all traffic also answers for it: no rule after it is asked."""
    if rule.selective and not rule.inverted:
        return False
    if rule.action != TO_TABLE or rule.table == TABLE_MAIN:
        return True
    return any(
        route.key.table == rule.table
        and route.key.family == rule.family
        and route.key.destination.prefixlen == 0
        for route in routes
    )
