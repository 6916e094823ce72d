"""What initcwnd would change. Pure: facts and a scope in, a plan or a refusal out."""

from __future__ import annotations

from dataclasses import dataclass

from ackward.kernel.route_message import Route
from ackward.model.changes import Change, Metric, SysctlSet
from ackward.model.plan import Plan, Refusal
from ackward.model.scopes import Scope, WindowScope
from ackward.remedies.route_metrics.plan import Request, Routing, plan_routes

NAME = "initcwnd"

#: "1": with each retransmission timeout that a connection rests it loses half its window, down to the initial one.
AFTER_IDLE = "net.ipv4.tcp_slow_start_after_idle"

#: The first window that a receiver announces is no larger than 64 KiB, since a SYN's is not scaled
#: (tcp_select_initial_window(), RFC 7323 section 2.2): so many segments of 1448 bytes.
FIRST_RECEIVE_WINDOW = 45


@dataclass(frozen=True)
class Facts:
    """A namespace's routes, and its :data:`AFTER_IDLE` (None: this kernel has none)."""

    routing: Routing
    after_idle: str | None


def plan(facts: Facts, scope: Scope) -> Plan | Refusal:
    """The plan for ``scope`` in a namespace. Without changes it says why none are needed."""
    if not isinstance(scope, WindowScope):
        raise TypeError(scope)
    segments = scope.segments

    def lacking(route: Route) -> dict[Metric, int]:
        """``initrwnd`` can only lower the window that this end offers first: one that is there is raised."""
        metrics: dict[Metric, int] = {}
        if route.metric("initcwnd") != segments:
            metrics["initcwnd"] = segments
        if 0 < route.metric("initrwnd") < segments:
            metrics["initrwnd"] = segments
        return metrics

    request = Request(
        remedy=NAME,
        to=scope.to,
        lacking=lacking,
        scope=scope.routes.words,
        state=f"initcwnd {segments}",
        aside="--to CIDR",
    )
    found = plan_routes(facts.routing, request)
    if isinstance(found, Refusal):
        return found
    changes: list[Change] = list(found.changes)
    if scope.after_idle:
        if facts.after_idle is None:
            return Refusal(reason=f"this kernel has no {AFTER_IDLE}", next_step="leave out --after-idle")
        if facts.after_idle != "0":
            changes.append(SysctlSet(name=AFTER_IDLE, before=facts.after_idle, after="0"))
    return Plan(
        remedy=NAME,
        namespace=facts.routing.namespace,
        scope=scope,
        changes=tuple(changes),
        notes=tuple(dict.fromkeys([*found.notes, *_notes(facts, scope)])),
    )


def _notes(facts: Facts, scope: WindowScope) -> list[str]:
    notes = []
    if scope.segments > FIRST_RECEIVE_WINDOW:
        notes.append(
            f"a receiver's first window has room for {FIRST_RECEIVE_WINDOW} segments (64 KiB): more help only "
            f"after a rest, and all {scope.segments} leave in one burst, so watch for loss"
        )
    if scope.after_idle:
        notes.append(
            f"{AFTER_IDLE} is one for the whole namespace: all its connections keep their window over a rest"
        )
        if facts.after_idle == "0":
            notes.append("it is so already")
    elif facts.after_idle == "1":
        notes.append(
            "a connection that rests loses half its window with each retransmission timeout, down to "
            f"{scope.segments} segments: --after-idle lets it keep its window"
        )
    return notes
