"""Which flows a scope reaches, of those that a watch saw."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

from ackward.diagnosis.flows import Flow
from ackward.kernel.processes import cgroup_of_process
from ackward.model.gateways import GatewayScope
from ackward.model.pins import ProcessPins
from ackward.model.plan import Plan
from ackward.model.scopes import PortScope, SocketScope
from ackward.model.segments import SocketFacts

Reaches = Callable[[Flow], bool]


def reached_by(plan: Plan) -> Reaches:
    """Whether a flow has an end in the plan's namespace that its scope reaches.

    Of routes only the destination is asked, not which route leads there: a default route counts for all.
    """

    def reaches(flow: Flow) -> bool:
        ends = [end for end in (flow.client_end, flow.server_end) if end]
        return any(end.owner.netns == plan.namespace.inode and _of(plan, end) for end in ends)

    return reaches


def _of(plan: Plan, end: SocketFacts) -> bool:
    scope = plan.scope
    ports = (end.local.port, end.remote.port)
    if isinstance(scope, PortScope):
        return scope.port in ports
    if isinstance(scope, ProcessPins | GatewayScope):
        return end.owner.pid == scope.pid
    if isinstance(scope, SocketScope):
        pid, cgroup = scope.pid, scope.cgroup
        return (
            (scope.ports is None or any(scope.ports[0] <= port <= scope.ports[1] for port in ports))
            and _leads_to(scope.to, end)
            and (pid is None or pid == end.owner.pid)
            and (cgroup is None or _in_cgroup(end.owner.pid, cgroup))
        )
    return _leads_to(scope.to, end)


def _leads_to(to: str | None, end: SocketFacts) -> bool:
    return to is None or end.remote.address in ip_network(to)


def _in_cgroup(pid: int | None, cgroup: str) -> bool:
    """Whether the process is in the v2 cgroup or below; false for one that has ended."""
    own = None if pid is None else cgroup_of_process(pid)
    return own is not None and Path(own).is_relative_to(Path("/") / cgroup)
