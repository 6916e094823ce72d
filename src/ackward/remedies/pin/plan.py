"""What pinning sockets would change. Pure: facts and a scope in, a plan or a refusal out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ackward.kernel.marks import free
from ackward.kernel.route_message import TABLE_LOCAL, TABLE_MAIN
from ackward.kernel.rules import TO_TABLE, Rule
from ackward.model.changes import OUR_PROTOCOL, Change, FollowerStarted, TableMirrored
from ackward.model.pins import KeeperStarted, MarkRuleAdded, ProcessPins
from ackward.model.plan import Plan, Refusal
from ackward.remedies.quickack.plan import TABLES, Facts

NAME = "pin"


@dataclass(frozen=True)
class Marks:
    """The bits of the packet mark that others claim, and the bit of each family that our rules have already."""

    claimed: int
    ours: Mapping[int, int]


def plan(facts: Facts, marks: Marks, scope: ProcessPins) -> Plan | Refusal:
    """One rule and one mirrored table a family for all sockets that the process marks, and who ends them."""
    mains = {family: _main(facts, family) for family in (4, 6)}
    families = [family for family in mains if any(rule.family == family for rule in facts.rules)]
    lacking = [family for family in families if mains[family] is None]
    if not families or lacking:
        return Refusal(
            reason="there are no policy routing rules"
            if not families
            else f"there is no IPv{lacking[0]} rule `from all lookup main` that ours could precede",
            next_step="ask for means='delack-max'",
        )
    bit = next(iter(marks.ours.values()), None) or free(marks.claimed)
    if bit is None or bit & marks.claimed:
        return Refusal(
            reason="no bit of the packet mark is free: rules of nftables, iptables, ip or a network plugin claim them",
            next_step="ask for means='delack-max', or use `ackward fix quickack --port`, which needs no mark",
        )
    taken = {route.key.table for route in facts.routes} | {rule.table for rule in facts.rules}
    # Each process begins elsewhere: workers that start together do not ask for the same table.
    first = scope.pid % len(TABLES)
    table = next((table for table in (*TABLES[first:], *TABLES[:first]) if table not in taken), None)
    if table is None:
        return Refusal(
            reason=f"all routing tables from {TABLES.start} to {TABLES.stop - 1} are in use",
            next_step="`ackward undo --all` clears those of ours",
        )
    tables: list[Change] = []
    rules: list[Change] = []
    notes: list[str] = []
    for family in families:
        main = mains[family]
        assert main is not None
        known = 4 if family == 4 else 6
        tables.append(TableMirrored(family=known, table=table))
        rules.append(MarkRuleAdded(family=known, preference=main.preference - 1, bit=bit, table=table))
        notes += [
            f"traffic that the IPv{family} rule {rule.words} takes is not covered"
            for rule in facts.rules
            if rule.family == family
            and rule.preference < main.preference
            and rule.protocol != OUR_PROTOCOL
            and rule.table != TABLE_LOCAL
        ]
    # The keeper comes first: what is made after it is taken back even if this process is killed in between.
    keeper = KeeperStarted(owner=scope.pid, owner_start_time=scope.start_time)
    changes = (keeper, *tables, *rules, FollowerStarted(table=table))
    return Plan(remedy=NAME, namespace=facts.namespace, scope=scope, changes=changes, notes=tuple(notes))


def _main(facts: Facts, family: int) -> Rule | None:
    """The rule that leads to main for all traffic, if one of ours can stand before it."""
    for rule in facts.rules:
        narrow = rule.selective or rule.inverted or rule.suppressing
        if (rule.family, rule.action, rule.table) == (family, TO_TABLE, TABLE_MAIN) and not narrow:
            return rule if rule.preference > 0 else None
    return None
