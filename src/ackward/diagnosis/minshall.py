"""Who does not follow Nagle's rule: a sender with a small segment out while an earlier small one is unacknowledged.

Linux applies the rule in Minshall's form (``tcp_minshall_check``): only small segments hold small segments back.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.flows import SEEN_FROM
from ackward.diagnosis.segmented import NEVER, Bools, Ints, in_order, running_max

#: Share of its occasions in which a sender may seem to break the rule: a capture that lacks an ACK shows that, too. Who
#: does not follow the rule breaks it whenever it writes twice within a round trip.
TOLERATED = 0.25


def breaks_rule(timeline: Timeline, small: Bools, acks: Bools, flows: Ints) -> Bools:
    """Of which of ``flows`` rows of ``small`` left while an earlier one was unacknowledged by ``acks``.

    Again and again (``TOLERATED``). Only rows of the same exchange count.
    """
    flow = timeline.segments["flow"]
    asked = np.zeros(len(timeline.flows), bool)
    asked[flows] = True
    row = np.flatnonzero((small | acks) & (timeline.exchange >= 0) & asked[flow])
    # Between the hosts the times are estimates, and by them a segment may be earlier than the ACK that released it.
    between = timeline.flows.seen_from == SEEN_FROM.index("between")
    if between.any():
        passed = np.where(between[flow[row]], timeline.segments["packet"][row], 0)
        row = row[np.argsort(in_order(timeline.exchange[row], passed), kind="stable")]
    # Exchanges follow each other in the order of their rows.
    group, mine = timeline.exchange[row], small[row]
    before = running_max(group, timeline.end64[row], where=mine, inclusive=False)
    acknowledged = running_max(group, timeline.ack64[row], where=acks[row], inclusive=False)
    occasions = np.bincount(flow[row[mine & (before > NEVER)]], minlength=len(timeline.flows))
    eager = np.bincount(flow[row[mine & (before > acknowledged)]], minlength=len(timeline.flows))
    broken: Bools = (eager > TOLERATED * occasions)[flows]
    return broken
