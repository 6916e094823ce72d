"""Nodelay's effects on the kernel are those of steering, with one option."""

from __future__ import annotations

from pathlib import Path

from ackward.kernel.namespaces import Namespace
from ackward.model.plan import Plan, Refusal
from ackward.model.scopes import Scope, SocketScope
from ackward.remedies import transaction
from ackward.remedies.bpf_pins import PinnedRemedy
from ackward.remedies.nodelay import plan as planning
from ackward.remedies.steering import apply as steering
from ackward.remedies.steering.apply import Steering
from ackward.remedies.steering.hook import Hook


def plan(namespace: Namespace, scope: Scope) -> Plan | Refusal:
    """What nodelay would change in ``namespace``; leaves nothing changed."""
    assert isinstance(scope, SocketScope), scope
    return planning.plan(steering.facts(namespace, scope, planning.OPTION), scope)


def sweep(namespace: Namespace, directory: Path) -> transaction.Swept:
    """Remove nodelay's hooks from a namespace, with what they set; the directory is that of the receipts."""
    return steering.sweep(planning.NAME, namespace, directory)


REMEDY = PinnedRemedy(planning.NAME, plan, Steering, sweep, Hook)
