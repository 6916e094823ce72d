"""What pinning sockets would change. Pure: facts and a scope in, a plan or a refusal out."""

from __future__ import annotations

from ackward.kernel.route_message import TABLE_LOCAL
from ackward.model.changes import OUR_PROTOCOL, Change, Family, FollowerStarted, TableMirrored
from ackward.model.pins import KeeperStarted, MarkRuleAdded, ProcessPins
from ackward.model.plan import Plan, Refusal
from ackward.remedies.detour.mark_bits import Marks
from ackward.remedies.detour.plan import TABLES, Facts, free_table, main_rule

NAME = "pin"


def plan(facts: Facts, marks: Marks, scope: ProcessPins) -> Plan | Refusal:
    """One rule and one mirrored table a family for all sockets that the process marks, and who ends them."""
    both: tuple[Family, ...] = (4, 6)
    mains = {family: main_rule(facts.rules, family) for family in both}
    families = [family for family in mains if any(rule.family == family for rule in facts.rules)]
    lacking = [family for family in families if mains[family] is None]
    if not families or lacking:
        return Refusal(
            reason="there are no policy routing rules"
            if not families
            else f"there is no IPv{lacking[0]} rule `from all lookup main` that ours could precede",
            next_step="ask for means='delack-max'",
        )
    bit = next(iter(marks.ours.values()), None) or marks.free
    if bit is None or bit & marks.claimed:
        return Refusal(
            reason="no bit of the packet mark is free: rules of nftables, iptables, ip or a network plugin claim them",
            next_step="ask for means='delack-max', or use `ackward fix quickack --port`, which needs no mark",
        )
    # Each process begins elsewhere: workers that start together do not ask for the same table.
    table = free_table(facts, first=scope.pid % len(TABLES))
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
        tables.append(TableMirrored(family=family, table=table))
        rules.append(MarkRuleAdded(family=family, preference=main.preference - 1, bit=bit, table=table))
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
