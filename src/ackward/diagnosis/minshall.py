"""Who does not follow Nagle's rule: a sender with a small segment out while an earlier small one is unacknowledged.

Linux applies the rule in Minshall's form (``tcp_minshall_check``): only small segments hold small segments back.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.segmented import Bools, running_max


def sent_unacknowledged(timeline: Timeline, small: Bools, acks: Bools) -> Bools:
    """Rows of ``small`` that left while an earlier one of the same exchange was unacknowledged by ``acks``."""
    order = np.lexsort((np.arange(len(small)), timeline.exchange))
    group = timeline.exchange[order]
    before = running_max(group, timeline.end64[order], where=small[order], inclusive=False)
    acknowledged = running_max(group, timeline.ack64[order], where=acks[order], inclusive=False)
    found = np.zeros(len(small), bool)
    found[order] = small[order] & (group >= 0) & (before > acknowledged)
    return found
