"""What a configuration costs on this host that its author may not expect: said at the start, and by `status`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ackward.gateway.config import Gateway

#: Descriptors of one connection, pipes apart: a client's side and a far side.
_EACH = 2


def notices(gateway: Gateway, descriptors: int) -> Iterator[str]:
    """One line for each; ``descriptors`` are as many as a process may have here (RLIMIT_NOFILE)."""
    if gateway.workers > 1 and gateway.exit:
        yield (
            f"workers = {gateway.workers} with an exit: legs cannot be joined (the next leg may meet another worker, "
            "which does not know the session): a leg that an entry's pool does not have takes two round trips more, "
            "so `early` gains nothing there"
        )
    faithful = [number for number, listen in enumerate(gateway.listen) if listen.answer == "faithful"]
    if gateway.workers > 1 and faithful:
        fields = ", ".join(f"listen.{number}" for number in faithful)
        yield f"workers = {gateway.workers}: {fields}: faithful listeners are served by the first worker alone"
    if descriptors < _EACH * gateway.limits.connections:
        yield (
            f"limits.connections = {gateway.limits.connections}: this host allows a worker {descriptors} descriptors, "
            f"enough for fewer than {descriptors // _EACH} connections; raise the limit (`ulimit -Hn`, LimitNOFILE=)"
        )
