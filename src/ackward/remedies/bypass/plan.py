"""What the bypass would change. Pure: facts and a scope in, a plan or a refusal out."""

from __future__ import annotations

from dataclasses import dataclass

from ackward.model.bypass import Capabilities, Hazard
from ackward.model.changes import BypassInstalled
from ackward.model.plan import NamespaceIdentity, Plan, Refusal
from ackward.model.scopes import BypassScope, Scope
from ackward.remedies.bypass.rules import OF_BLOCKING_READERS, RULES

NAME = "bypass"


@dataclass(frozen=True)
class Facts:
    """What a plan needs to know. ``capabilities``: what the self-test found, if it was run on this kernel."""

    namespace: NamespaceIdentity
    capabilities: Capabilities | None


def plan(facts: Facts, scope: Scope) -> Plan | Refusal:
    """The plan for ``scope``; refused where joined connections would differ from TCP and nobody accepted it."""
    assert isinstance(scope, BypassScope), scope
    return (
        unfit(scope)
        or _hazards(facts.capabilities, scope)
        or Plan(
            remedy=NAME,
            namespace=facts.namespace,
            scope=scope,
            changes=(BypassInstalled(scope=scope),),
            notes=tuple(_notes(scope)),
        )
    )


def unfit(scope: BypassScope) -> Refusal | None:
    """Why no kernel could have a bypass of this scope, if so."""
    if (scope.ports, scope.to, scope.source, scope.cgroup) == (None, None, None, None):
        return Refusal(
            reason="no scope is named, and no connection is joined by default",
            next_step="name --port, --to, --from or --cgroup (`--port 1-65535` means all of the namespace)",
        )
    for what, rules in (
        ("--exclude ports", scope.excluded_ports),
        ("--exclude CIDRs", scope.excluded_networks),
    ):
        if len(rules) > RULES:
            return Refusal(
                reason=f"{len(rules)} {what} are more than the {RULES} that the kernel's program looks at",
                next_step="join neighbouring ones into ranges, or name a narrower scope",
            )
    return None


def _hazards(found: Capabilities | None, scope: BypassScope) -> Refusal | None:
    accepted = frozenset(scope.accepted)
    if scope.joins == "learned":  # services with a blocking reader stay out then, unless these were accepted
        accepted |= OF_BLOCKING_READERS
    if found is None:
        if accepted == frozenset(Hazard):
            return None
        return Refusal(
            reason="how joined connections behave on this kernel was not tried yet",
            consequence="whether programs would notice is not known; nothing was changed",
            next_step="`ackward doctor --self-test`, which tries it in namespaces of its own in seconds",
        )
    differing = [finding.hazard.value for finding in found.differing(accepted)]
    untried = [hazard.value for hazard in found.untried() if hazard not in accepted]
    if not differing and not untried:
        return None
    words = [f"differs from TCP in {', '.join(differing)}"] if differing else []
    words += [f"was not tried for {', '.join(untried)}"] if untried else []
    return Refusal(
        reason=f"on this kernel a joined connection {' and '.join(words)}",
        consequence="a program that relies on it would notice; nothing was changed",
        next_step="see what `ackward doctor --self-test` measured; if the programs in scope rely on none of these, add "
        f"`--accept {','.join(differing + untried)}`",
    )


def _notes(scope: BypassScope) -> list[str]:
    notes = [
        "connections that are open now stay on TCP; new ones join when both their ends are on this host",
        "packet filters, tcpdump and byte counters do not see what a joined connection sends",
    ]
    if scope.joins == "learned":
        polls = "" if set(scope.accepted) >= OF_BLOCKING_READERS else " and that no program blocks in recv()"
        notes.append(
            "a service's first connections stay on TCP, until it shows that its peers take turns or stream in large "
            f"writes{polls}"
        )
        if polls:
            notes.append(
                "a program that polls when it connects and blocks in recv() later may get EAGAIN there; once one of "
                "its connections has ended no more of them join"
            )
    if scope.cgroup is not None:
        notes.append("a socket belongs to the cgroup that its program was in when it made the socket")
    return notes
