"""TCP ports as people name them: one, or a range."""

from __future__ import annotations

import re

from ackward.errors import UsageError

_UNCHANGED = "nothing was changed"
_PORTS = range(1, 65536)
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def one_port(port: int | None) -> None:
    """Raises :class:`UsageError` if something else than a port was named."""
    if port is not None and port not in _PORTS:
        raise UsageError(
            f"--port {port} is no TCP port",
            consequence="nothing was looked at",
            next_step="name one from 1 to 65535",
        )


def port_range(text: str) -> tuple[int, int]:
    """The first and the last port of ``7000`` or ``7000-7010``; raises :class:`UsageError`."""
    found = _RANGE.fullmatch(text.strip())
    if not found:
        raise UsageError(
            f"--port {text!r} is no TCP port",
            consequence=_UNCHANGED,
            next_step="write 7000, or 7000-7010 for a range",
        )
    first = int(found[1])
    last = int(found[2] or first)
    if first not in _PORTS or last not in _PORTS:
        raise UsageError(
            f"--port {text} is no TCP port", consequence=_UNCHANGED, next_step="name one of 1 to 65535"
        )
    if last < first:
        raise UsageError(
            f"--port {text} is turned round", consequence=_UNCHANGED, next_step=f"write {last}-{first}"
        )
    return first, last
