"""When a timer of the kernel fires: on a tick, never early, and later the longer it is.

``calc_wheel_index`` (kernel/time/timer.c) rounds up by one unit of the wheel's level, so that a timer armed between two
ticks cannot fire early: 40 ms at HZ=250 take 40 to 44 ms. A level has 64 slots and is 8 times coarser than the one
below.
"""

from __future__ import annotations

_FIRST_LEVEL_TICKS = 63
_COARSER = 8


def expiry(now_ns: int, delay_ns: int, tick_ns: int) -> int:
    """The moment a timer fires that is armed at ``now_ns`` for ``delay_ns``; exact if ``tick_ns`` is 0."""
    if tick_ns == 0:
        return now_ns + delay_ns
    ticks = -(-delay_ns // tick_ns)  # usecs_to_jiffies() rounds up
    unit, reach = 1, _FIRST_LEVEL_TICKS
    while ticks >= reach:
        unit, reach = unit * _COARSER, reach * _COARSER
    due = now_ns // tick_ns + ticks
    return (due // unit + 1) * unit * tick_ns
