"""What steering would change, for any option. Pure: facts and a scope in, a plan or a refusal out."""

from __future__ import annotations

from dataclasses import dataclass

from ackward.model.changes import OpenSocketsSet, SocketOption, SocketsSteered
from ackward.model.plan import NamespaceIdentity, Plan, Refusal
from ackward.model.scopes import SocketScope


@dataclass(frozen=True)
class Facts:
    """What a plan needs to know: the scope's open connections, and hooks of ours that reach into the same scope.

    ``unreached``: reasons in words. ``overlapping``: ids of receipts whose scope is another. ``sees_creation``: the
    process's new sockets can be told from others' (not from inside a PID namespace).
    """

    namespace: NamespaceIdentity
    open: int
    already: int
    unreached: tuple[str, ...] = ()
    overlapping: tuple[str, ...] = ()
    sees_creation: bool = True


def plan(remedy: str, facts: Facts, scope: SocketScope, option: SocketOption) -> Plan | Refusal:
    """Both new and open connections of the scope; refused where another receipt steers the same connections."""
    if facts.overlapping:
        return overlap(facts.overlapping)
    return Plan(
        remedy=remedy,
        namespace=facts.namespace,
        scope=scope,
        changes=(SocketsSteered(option=option, scope=scope), OpenSocketsSet(option=option, scope=scope)),
        notes=tuple(_notes(facts, scope, option)),
    )


def overlap(receipts: tuple[str, ...]) -> Refusal:
    """Undone separately, two hooks on one connection would take each other's setting back."""
    return Refusal(
        reason=f"connections of this scope are steered already, by {', '.join(receipts)}",
        next_step=f"`ackward undo {receipts[0]}` (`--all` if its receipt is lost), or narrow the scope",
    )


def _notes(facts: Facts, scope: SocketScope, option: SocketOption) -> list[str]:
    has_it = f" ({facts.already} with {option.words} already)" if facts.already else ""
    notes = [f"open in this scope now: {facts.open}{has_it}"]
    notes += [f"{words}: they stay as they are" for words in facts.unreached]
    if scope.cgroup is not None:
        notes.append("a socket belongs to the cgroup that its program was in when it made the socket")
    if scope.pid is not None and facts.sees_creation:
        notes.append("processes that it starts are not covered (`--cgroup` covers them)")
    if scope.pid is not None and not facts.sees_creation:
        notes.append(
            "new outgoing connections of the process are not covered: its number is another outside this PID "
            "namespace (`--cgroup` covers them)"
        )
    return notes
