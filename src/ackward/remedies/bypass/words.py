"""What an engine counted and holds, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ackward.remedies.bypass.rules import Counters, Manner, Service, Survey

#: Why ends stayed out, and why messages of members went over TCP, by the counter's name.
_KEPT_OUT = {
    "out_of_scope": "out of scope",
    "forbidden": "excluded",
    "mptcp": "multipath",
    "fast_open": "TCP Fast Open",
    "other_owner": "in somebody else's sock map",
    "has_ulp": "with an upper-layer protocol (kTLS)",
    "table_full": "no room in the table",
    "sampled": "while their service is learned",
    "streams": "of services that stream",
    "blocks": "of services with a program that blocks in recv()",
    "peculiar": "with socket options that a sock map ignores",
    "wrote_early": "whose client wrote at once",
    "ambiguous": "not to be told from another",
}
_OVER_TCP = {
    "passed_unpaired": "before the other end had joined",
    "passed_behind": "behind others on TCP",
    "passed_full": "the reader's queue was full",
    "passed_many": "too many messages in the reader's queue",
    "passed_memory": "memory was short",
    "passed_window": "the reader's window was small",
    "passed_closing": "an end was closing",
    "passed_stopped": "while undone",
}


_MANNERS = {
    Manner.UNDECIDED: "is being learned",
    Manner.JOINS: "joins",
    Manner.STREAMS: "stays on TCP (it streams, in small writes)",
    Manner.BLOCKS: "stays on TCP (a program blocks in recv())",
    Manner.PECULIAR: "stays on TCP (socket options that a sock map ignores)",
}
#: Services that one line of status names.
_NAMED = 5


def words(counters: Counters, survey: Survey, services: Sequence[Service] = ()) -> str:
    """One line for ``ackward status``."""
    parts = [
        f"{_counted(survey.connections, 'connection')} joined now, {counters.joined // 2} ever",
        f"{_counted(counters.redirected, 'message')} and {counters.redirected_bytes} bytes redirected",
    ]
    if survey.waiting_bytes:
        parts.append(
            f"{survey.waiting_bytes} bytes queued for {_counted(survey.waiting_ends, 'reader')}, "
            f"{survey.most_waiting_bytes} for one at most"
        )
    if reasons := _reasons(counters, _OVER_TCP):
        parts.append(f"over TCP: {reasons}")
    if reasons := kept_out(counters):
        parts.append(f"kept out: {reasons}")
    named = Counter(
        f"port {service.port}{' within its namespace' * service.within} {_MANNERS[service.manner]}"
        for service in sorted(services, key=lambda one: (one.port, one.cgroup, one.within, one.manner))
    )
    parts += [
        what if count == 1 else f"{what}, for {count} pairs of cgroups"
        for what, count in list(named.items())[:_NAMED]
    ]
    if len(named) > _NAMED:
        parts.append(f"{len(named) - _NAMED} more services")
    return "; ".join(parts)


def kept_out(counters: Counters) -> str:
    """Why connections stayed on TCP, each reason with its count; empty if none did."""
    return _reasons(counters, _KEPT_OUT)


def drained(survey: Survey) -> str:
    """What is left of an engine whose pins go, of connections that are open.

    Of one that has ended its program may still have bytes to read, which nobody counts, and which stay.
    """
    if not survey.ends:
        return "no joined connection was open any more"
    left = f"{_counted(survey.connections, 'open connection')} went back to TCP"
    if survey.waiting_bytes:
        left += (
            f", draining: {survey.waiting_bytes} bytes stay queued for "
            f"{_counted(survey.waiting_ends, 'reader')} that has not read them yet"
        )
    return left


def _reasons(counters: Counters, names: dict[str, str]) -> str:
    return ", ".join(
        f"{count} {names[name]}" for name, count in counters._asdict().items() if name in names and count
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
