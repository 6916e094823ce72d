"""Values as people write them on a command line."""

from __future__ import annotations

import re

from ackward.errors import UsageError

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ns|us|ms|s|m|h)")
_LONGEST = 24 * _UNITS["h"]


def duration_ns(text: str, option: str) -> int:
    """``10s``, ``500ms``, ``1m`` in nanoseconds; raises :class:`UsageError` for anything else."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise UsageError(
            f"{option} {text!r} is no duration",
            consequence="nothing was done",
            next_step="write a number and a unit: 10s, 500ms, 1m",
        )
    nanoseconds = round(float(found["number"]) * _UNITS[found["unit"]])
    if nanoseconds > _LONGEST:
        raise UsageError(
            f"{option} {text} is longer than a day",
            consequence="nothing was done",
            next_step="name a shorter time",
        )
    return nanoseconds
