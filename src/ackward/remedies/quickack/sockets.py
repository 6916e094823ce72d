"""What quickack would change for single sockets: a mark that leads them to a detour, or a cap on their delay. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ackward.model.changes import SocketOption
from ackward.model.pins import MarkRuleAdded
from ackward.model.plan import Plan, Refusal
from ackward.model.scopes import CapScope, SocketScope
from ackward.remedies.detour.plan import Facts, detour
from ackward.remedies.quickack.plan import NAME, NEEDLESS
from ackward.remedies.steering import plan as steering


def mark(bit: int) -> SocketOption:
    """One bit of the packet mark; the others are left to those who use them."""
    return SocketOption(name="SO_MARK", value=bit, mask=bit)


def plan_marks(
    facts: Facts, sockets: steering.Facts, scope: SocketScope, option: SocketOption
) -> Plan | Refusal:
    """The detour, then the sockets; undone the other way round: none that is marked ever meets an empty table."""
    way = detour(facts, otherwise="use the route scope (without --cgroup and --pid)")
    if isinstance(way, Refusal):
        return way
    steered = steering.plan(NAME, sockets, scope, option)
    if isinstance(steered, Refusal):
        return steered
    if facts.main_has_quickack:
        return steered.model_copy(update={"changes": (), "notes": (NEEDLESS,)})
    rules = [
        MarkRuleAdded(family=place.family, preference=place.preference, bit=option.value, table=way.table)
        for place in way.places
    ]
    notes = dict.fromkeys((*steered.notes, *way.notes))
    changes = (*way.changes(rules), *steered.changes)
    return steered.model_copy(update={"changes": changes, "notes": tuple(notes)})


def no_bit() -> Refusal:
    """Why nothing can be marked."""
    return Refusal(
        reason="no bit of the packet mark is free: rules of nftables, iptables, ip, a network plugin or earlier fixes "
        "claim them",
        next_step="use --cap 8ms, or --port alone: they need no mark",
    )


@dataclass(frozen=True)
class Caps:
    """What the kernel makes of a cap, in microseconds: ``rounded`` is what a socket reads back.

    None is one that it does not take: below ``least`` (two ticks), or above ``most``, which every socket begins with.
    """

    rounded: int | None
    least: int
    most: int


def cap(caps: Caps, scope: CapScope) -> SocketOption | Refusal:
    """The option that caps the delay, as the kernel counts it."""
    if caps.rounded is None:
        return Refusal(
            reason=f"the kernel caps no delay at {_ms(scope.cap_us)}: it takes {_ms(caps.least)} (two ticks of its "
            f"clock, TCP_TIMEOUT_MIN) to {_ms(caps.most)} (TCP_DELACK_MAX)",
            next_step=f"use --cap {_ms(caps.least).replace(' ', '')}, or leave --cap out to acknowledge at once",
        )
    return SocketOption(name="TCP_DELACK_MAX", value=caps.rounded)


def plan_cap(caps: Caps, sockets: steering.Facts, scope: CapScope, option: SocketOption) -> Plan | Refusal:
    """The sockets alone: no route, no rule, and it holds for connections that stay inside the namespace too."""
    steered = steering.plan(NAME, sockets, scope.sockets, option)
    if isinstance(steered, Refusal):
        return steered
    asked = (
        ""
        if option.value == scope.cap_us
        else f"{_ms(scope.cap_us)} is {_ms(option.value)} in ticks of the kernel; "
    )
    # A timer never fires early (calc_index() in kernel/time/timer.c), and the processors' ticks are not one.
    remains = (
        f"{asked}an ACK that is delayed still waits for {_ms(option.value)} and one or two ticks of "
        f"{_ms(caps.least // 2)} more; it costs fewer ACKs than quickack without --cap"
    )
    return steered.model_copy(update={"scope": scope, "notes": (remains, *steered.notes)})


def _ms(microseconds: int) -> str:
    return f"{microseconds / 1000:g} ms"
