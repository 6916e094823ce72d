"""Initcwnd's effects on the kernel: metrics of routes, and the setting for connections that rest."""

from __future__ import annotations

from pathlib import Path

from ackward.errors import Refused
from ackward.kernel import sysctl
from ackward.kernel.namespaces import Namespace
from ackward.kernel.netlink import Netlink
from ackward.model.changes import Change, RouteAdded, RouteMetric, SysctlSet
from ackward.model.plan import Ending, Look, Plan, Refusal, State, Undone
from ackward.model.scopes import Scope
from ackward.remedies import transaction
from ackward.remedies.initcwnd import plan as planning
from ackward.remedies.initcwnd.plan import AFTER_IDLE, Facts
from ackward.remedies.over_netlink import OverNetlink
from ackward.remedies.route_metrics.apply import RouteMetrics, looked, read_routing, sweep_routes


def plan(namespace: Namespace, scope: Scope) -> Plan | Refusal:
    """What initcwnd would change in ``namespace``; reads only."""
    with Netlink(namespace) as netlink:
        routing = read_routing(netlink)
    return planning.plan(Facts(routing, sysctl.read(namespace, AFTER_IDLE)), scope)


class Initcwnd(OverNetlink):
    """The effects, inside ``namespace``; the receipt's file is of no use to them."""

    def __init__(self, namespace: Namespace, _: Path) -> None:
        super().__init__(namespace)
        self._routes = RouteMetrics(self._netlink)

    def make(self, change: Change) -> Change:
        """Make the change, verified by reading back."""
        match change:
            case RouteMetric() | RouteAdded():
                self._routes.make(change)
            case SysctlSet():
                if self.look(change).state is not State.GONE:
                    raise Refused(
                        f"{change.name} changed between plan and apply",
                        consequence="nothing was changed",
                        next_step="run the command again",
                    )
                sysctl.write(self._namespace, change.name, change.after)
            case _:
                raise TypeError(change)
        return change

    def look(self, change: Change) -> Look:
        """Read the change back."""
        match change:
            case RouteMetric() | RouteAdded():
                return self._routes.look(change)
            case SysctlSet():
                value = sysctl.read(self._namespace, change.name)
                if value == change.after:
                    return looked(State.IN_FORCE, change.name, f"is {value}")
                if value == change.before:
                    return looked(State.GONE, change.name, f"is {value}, as before")
                return looked(State.CHANGED, change.name, f"is {value}, which we did not set")
            case _:
                raise TypeError(change)

    def unmake(self, change: Change) -> Undone:
        """Take the change back if it is still as we set it."""
        if not isinstance(change, SysctlSet):
            if not isinstance(change, RouteMetric | RouteAdded):
                raise TypeError(change)
            return self._routes.unmake(change)
        found = self.look(change)
        if found.state is State.IN_FORCE:
            sysctl.write(self._namespace, change.name, change.before)
            return Undone(ending=Ending.UNDONE, words=f"{Ending.UNDONE.value}: {change.words}")
        ending = Ending.LEFT if found.state is State.CHANGED else Ending.NOTHING
        return Undone(ending=ending, words=f"{ending.value}: {found.words}")


def sweep(namespace: Namespace, _: Path) -> transaction.Swept:
    """Remove routes of our protocol number from a namespace.

    Suspects are initial windows on the routes of others, and the setting: a lost receipt may have spoken of them.
    """
    with Netlink(namespace) as netlink:
        removed, suspects = sweep_routes(netlink, namespace, ["initcwnd", "initrwnd"])
    if sysctl.read(namespace, AFTER_IDLE) == "0":
        suspects.append(f"{namespace.name}: {AFTER_IDLE}=0")
    return transaction.Swept(tuple(removed), tuple(suspects))


REMEDY = transaction.Remedy(planning.NAME, plan, Initcwnd, sweep)
