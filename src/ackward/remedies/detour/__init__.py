"""A way round the table main: a mirror of it with quickack on every route, rules that lead there, and a follower.

No remedy by itself: quickack (by port, cgroup and process) and pin send the traffic that they are for this way, and
the gateway takes its table from the same numbers. ``plan`` (pure) finds where table and rules can stand, ``mark_bits``
which bits of the packet mark are free, ``apply`` makes them. ``mirror`` is the process that follows main for as long
as its ``lifeline`` holds; ``follower`` starts and recognises it.
"""
