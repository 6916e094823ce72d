"""How far a peer let its sender send (RFC 9293 section 3.8.6)."""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.segmented import NEVER, Bools, Ints, running_max
from ackward.model.segments import WINDOW_UNTOLD

#: Where nothing tells how far: no window was seen yet, or none of a known scale.
ANYWHERE = np.int64(1 << 62)


def edge(timeline: Timeline, offers: Bools, at: Ints) -> Ints:
    """Before each of rows ``at``, the sequence number up to which rows ``offers`` of its flow let the other end send.

    A window does not shrink, so the furthest counts. Of windows that nothing tells the scale of only a closed one is
    certain, and only until the next is offered.
    """
    flow, window = timeline.segments["flow"], timeline.segments["window"]
    offers = offers & (timeline.ack64 > NEVER)
    furthest = running_max(flow, timeline.ack64 + window, where=offers, inclusive=False, at=at)
    furthest = np.where(furthest == NEVER, ANYWHERE, furthest)
    untold = offers & (window == WINDOW_UNTOLD)
    if not untold.any():
        return furthest
    unscaled = np.zeros(len(timeline.flows), bool)
    unscaled[flow[untold]] = True
    latest = timeline.previous(offers, at)
    closed = (latest >= 0) & (window[latest] == 0)
    return np.where(unscaled[flow[at]], np.where(closed, timeline.ack64[latest], ANYWHERE), furthest)
