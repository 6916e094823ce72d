"""Tail-loss probes that carry new data (RFC 8985 section 7.3): they left a sender that stood still, and end nothing.

A sender out of window sends one more segment when no ACK came for about two round trips (``tcp_schedule_loss_probe``,
``tcp_send_loss_probe``). Whoever asks how long the sender stood still must look past it.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.segmented import Bools

#: What a probe waits for beyond two round trips at the least (``TCP_TIMEOUT_MIN_US``).
PROBE_SLACK_NS = 2_000_000


def of_new_data(timeline: Timeline, sent: Bools, advancing: Bools) -> Bools:
    """Rows of ``sent``: a segment two round trips and more after a full one, and none of ``advancing`` in between."""
    segments, time = timeline.segments, timeline.time
    row = np.flatnonzero(sent & (timeline.exchange >= 0) & (segments["segments"] <= 1))
    before = timeline.previous(sent, row)
    exchange = timeline.exchange[row]
    waited = time[row] - time[before] >= 2 * timeline.min_rtt[exchange] + PROBE_SLACK_NS
    waited &= (before >= 0) & (timeline.exchange[before] == exchange) & ~timeline.not_full[before]
    row, before = row[waited], before[waited]
    found = np.zeros(len(sent), bool)
    found[row[timeline.previous(advancing, row) < before]] = True
    return found
