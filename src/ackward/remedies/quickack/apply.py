"""Quickack's effects on the kernel: routes, detours and sockets, each kind of change by who knows it."""

from __future__ import annotations

import functools
import socket
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel import background, mark_rules, marks, own_socket
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink
from ackward.model.changes import Change, OpenSocketsSet, RouteAdded, RouteMetric, SocketsSteered
from ackward.model.pins import MarkRuleAdded
from ackward.model.plan import Look, Plan, Refusal, Undone
from ackward.model.scopes import CapScope, RouteScope, Scope, SocketScope
from ackward.remedies import transaction
from ackward.remedies.bpf_pins import PinnedRemedy
from ackward.remedies.detour import follower, mark_bits
from ackward.remedies.detour.apply import Rerouting, facts, sweep_rules, taken_meanwhile
from ackward.remedies.detour.plan import Facts
from ackward.remedies.over_netlink import OverNetlink
from ackward.remedies.quickack import plan as planning
from ackward.remedies.quickack import sockets
from ackward.remedies.quickack.sockets import Caps
from ackward.remedies.route_metrics.apply import RouteMetrics, read_routing, sweep_routes
from ackward.remedies.steering import apply as steering
from ackward.remedies.steering.apply import Steering
from ackward.remedies.steering.hook import Hook


def plan(namespace: Namespace, scope: Scope) -> Plan | Refusal:
    """What quickack would change in ``namespace``; reads only."""
    match scope:
        case CapScope():
            return _plan_cap(namespace, scope)
        case SocketScope():
            return _plan_marks(namespace, scope)
        case RouteScope():  # rules make no difference to it, and pods wait for this at their start
            with Netlink(namespace) as netlink:
                routing = read_routing(netlink)
            return planning.plan(Facts(routing.namespace, routing.routes, (), routing.interfaces), scope)
        case _:
            return planning.plan(facts(namespace), scope)


def _plan_marks(namespace: Namespace, scope: SocketScope) -> Plan | Refusal:
    bit = mark_bits.read(namespace).free
    if bit is None:
        return sockets.no_bit()
    option = sockets.mark(bit)
    return sockets.plan_marks(facts(namespace), steering.facts(namespace, scope, option), scope, option)


def _plan_cap(namespace: Namespace, scope: CapScope) -> Plan | Refusal:
    caps = _caps(scope.cap_us)
    option = sockets.cap(caps, scope)
    if isinstance(option, Refusal):
        return option
    return sockets.plan_cap(caps, steering.facts(namespace, scope.sockets, option), scope, option)


def _caps(asked_us: int) -> Caps:
    """Tried on a socket of our own. Raises :class:`Unavailable` where the kernel has no such option."""
    with socket.socket() as trial:
        most = own_socket.delack_max_us(trial)
        if most is None:
            raise Unavailable(
                "this kernel has no TCP_DELACK_MAX_US (about Linux 6.15)",
                consequence="the delay of ACKs cannot be capped; nothing was changed",
                next_step="leave --cap out to acknowledge at once",
            )
        own_socket.bound_delay(trial)
        least = own_socket.delack_max_us(trial)
        assert least is not None
        if not least <= asked_us <= most:
            return Caps(None, least, most)
        own_socket.set_delack_max_us(trial, asked_us)
        return Caps(own_socket.delack_max_us(trial), least, most)


class Quickack(OverNetlink):
    """The effects, inside ``namespace``, for the receipt in the file ``receipt``."""

    def __init__(self, namespace: Namespace, receipt: Path) -> None:
        super().__init__(namespace)
        self._receipt = receipt
        self._routes = RouteMetrics(self._netlink)
        self._rerouting = Rerouting(self._netlink, receipt)

    @functools.cached_property
    def _steering(self) -> Steering:
        return Steering(self._namespace, self._receipt)

    def make(self, change: Change) -> Change:
        """Make the change, verified by reading back."""
        match change:
            case RouteMetric() | RouteAdded():
                self._routes.make(change)
                return change
            case SocketsSteered() | OpenSocketsSet():
                return self._steering.make(change)
            case MarkRuleAdded():
                self._require_free(change)
        return self._rerouting.make(change)

    def look(self, change: Change) -> Look:
        """Read the change back."""
        match change:
            case RouteMetric() | RouteAdded():
                return self._routes.look(change)
            case SocketsSteered() | OpenSocketsSet():
                return self._steering.look(change)
        return self._rerouting.look(change)

    def unmake(self, change: Change) -> Undone:
        """Take the change back; of a route that is not ours only what still is as we set it."""
        match change:
            case RouteMetric() | RouteAdded():
                return self._routes.unmake(change)
            case SocketsSteered() | OpenSocketsSet():
                return self._steering.unmake(change)
        return self._rerouting.unmake(change)

    def _require_free(self, change: MarkRuleAdded) -> None:
        """Two plans made at once may name the same bit; undo of the one would take it off the other's sockets."""
        found = mark_rules.dump(self._netlink, change.family)
        if any(marks.claim(rule.mark, rule.mask) & change.bit for rule in found):
            raise taken_meanwhile(f"the bit {change.bit:#x} of the packet mark")


def sweep(namespace: Namespace, directory: Path) -> transaction.Swept:
    """Remove hooks of ours, then rules and routes of our protocol number; end the followers of ``directory``.

    Suspects are the routes of others that have quickack: a lost receipt may have spoken of them.
    """
    unmarked = steering.sweep(planning.NAME, namespace, directory).removed
    ended = [f"process {lost.pid}" for lost in follower.running(directory) if background.stop(lost)]
    with Netlink(namespace) as netlink:
        removed = sweep_rules(netlink, namespace)
        deleted, suspects = sweep_routes(netlink, namespace, ["quickack"])
    return transaction.Swept((*unmarked, *ended, *removed, *deleted), tuple(suspects))


REMEDY = PinnedRemedy(planning.NAME, plan, Quickack, sweep, Hook)
