"""What nodelay would change. Pure: facts and a scope in, a plan or a refusal out."""

from __future__ import annotations

from ackward.model.changes import SocketOption
from ackward.model.plan import Plan, Refusal
from ackward.model.scopes import Scope, SocketScope
from ackward.remedies.steering import plan as steering
from ackward.remedies.steering.plan import Facts

NAME = "nodelay"
OPTION = SocketOption(name="TCP_NODELAY", value=1)


def plan(facts: Facts, scope: Scope) -> Plan | Refusal:
    """The plan for ``scope`` in a namespace."""
    assert isinstance(scope, SocketScope), scope
    return steering.plan(NAME, facts, scope, OPTION)
