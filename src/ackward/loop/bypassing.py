"""Fix bypass: the scope as people write it, and the self-test that a plan needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ackward import remedies
from ackward.errors import UsageError
from ackward.loop.fixing import asked_by
from ackward.loop.port_ranges import port_range
from ackward.loop.socket_scopes import namespace_of, socket_scope
from ackward.model.bypass import Capabilities, Hazard
from ackward.model.plan import Plan, Refusal
from ackward.model.scopes import BypassScope, SocketScope
from ackward.remedies.bypass import capabilities
from ackward.remedies.bypass.plan import unfit
from ackward.remedies.route_metrics.plan import network


def bypass_scope(
    *,
    port: int | str | None = None,
    to: str | None = None,
    source: str | None = None,
    cgroup: str | None = None,
    exclude: Iterable[str] = (),
    accept: Iterable[str] = (),
    learn: bool = True,
) -> BypassScope:
    """The scope that the arguments ask for, looked up on this machine; raises :class:`UsageError`.

    ``exclude``: ports, ranges of ports and CIDRs. ``accept``: names of hazards, also several with commas between them.
    """
    sockets = (
        socket_scope(port=port, to=to, cgroup=cgroup)
        if (port, to, cgroup) != (None, None, None)
        else SocketScope()
    )
    excluded = [part for text in exclude for part in text.split(",")]
    return BypassScope(
        ports=sockets.ports,
        to=sockets.to,
        source=None if source is None else str(network(source, "--from")),
        cgroup=sockets.cgroup,
        excluded_ports=tuple(port_range(part) for part in excluded if _is_ports(part)),
        excluded_networks=tuple(str(network(part, "--exclude")) for part in excluded if not _is_ports(part)),
        accepted=tuple(_hazards(name for text in accept for name in text.split(","))),
        joins="learned" if learn else "all",
    )


def _is_ports(text: str) -> bool:
    return text.replace("-", "").isdigit()


def _hazards(names: Iterable[str]) -> list[Hazard]:
    """In the order of their definition, so that the same request is the same scope."""
    asked = set(names)
    if unknown := asked - set(Hazard):
        raise UsageError(
            f"--accept {min(unknown)} is no hazard",
            consequence="nothing was changed",
            next_step=f"name one of {', '.join(Hazard)}; `ackward doctor --self-test` explains them",
        )
    return [hazard for hazard in Hazard if hazard in asked]


def plan_bypass(
    *,
    netns: str | None = None,
    port: int | str | None = None,
    to: str | None = None,
    source: str | None = None,
    cgroup: str | None = None,
    exclude: Iterable[str] = (),
    accept: Iterable[str] = (),
    learn: bool = True,
    self_test: Callable[[], Capabilities] | None = None,
) -> Plan:
    """What ``fix bypass`` would change; raises :class:`Refused` with the reason if it should not.

    The arguments are those of :func:`bypass_scope`. Without ``netns`` it is the namespace of the cgroup's processes,
    or the current one. ``self_test`` is called when this kernel was not tried yet.
    """
    exclude, accept = tuple(exclude), tuple(accept)
    scope = bypass_scope(
        port=port, to=to, source=source, cgroup=cgroup, exclude=exclude, accept=accept, learn=learn
    )
    if refusal := unfit(scope):
        raise refusal.as_error()
    if self_test and set(scope.accepted) != set(Hazard) and capabilities.load() is None:
        capabilities.store(self_test())
    namespace = namespace_of(netns, SocketScope(cgroup=scope.cgroup))
    found = remedies.load("bypass").plan(namespace, scope)
    if isinstance(found, Refusal):
        raise found.as_error()
    options: dict[str, str | int | bool | None] = {
        "port": port,
        "to": to,
        "from": source,
        "cgroup": cgroup,
        "exclude": ",".join(exclude) or None,
        "accept": ",".join(accept) or None,
        "no-learn": not learn,
    }
    return asked_by(found, **options)
