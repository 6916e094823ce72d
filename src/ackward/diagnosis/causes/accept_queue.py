"""``accept-queue``: the server's kernel had no room for another connection that waits to be accepted.

It then drops the SYN, or the ACK that completes the handshake (``tcp_conn_request``, ``tcp_check_req``). At the
server's end a SYN is there and nothing answers it; at either end the SYN-ACK comes again although the client has
confirmed it.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.segmented import NEVER, Ints
from ackward.model.causes import Cause
from ackward.model.segments import Flag, Kind, Vantage


def claims(waits: Waits) -> list[Claims]:
    """SYNs that the server's host ignored, and confirmed handshakes that it did not know of."""
    return [
        *_ignored(waits.timeline),
        *(_forgotten(waits.timeline, end) for end in waits.timeline.vantages),
    ]


def _ignored(timeline: Timeline) -> list[Claims]:
    """The server's host has the SYN, the client sends it again, and no SYN-ACK went out in between."""
    segments, time, exchange = timeline.segments, timeline.time, timeline.exchange
    # The first may lie just before the exchange, where the clocks of two captures agree only nearly.
    syn = (segments["tcp_flags"] & Flag.SYN > 0) & timeline.at(Vantage.SERVER)
    asked = syn & (segments["kind"] == Kind.RECEIVED)
    again = np.flatnonzero(asked)
    before = timeline.previous(asked, again)
    replied = timeline.previous(syn & (segments["kind"] == Kind.SENT), again)
    ignored = (before >= 0) & (replied < before)
    again, before = again[ignored], before[ignored]
    return [
        Claims.of(
            Cause.ACCEPT_QUEUE, exchange[again], time[before], time[again], observed=False, evidence=again
        )
    ]


def _forgotten(timeline: Timeline, vantage: Vantage) -> Claims:
    """The client confirmed, and the SYN-ACK came again: until the server sends anything else, it knows nothing."""
    segments, time, exchange = timeline.segments, timeline.time, timeline.exchange
    here = (exchange >= 0) & timeline.at(vantage)
    syn = here & (segments["tcp_flags"] & Flag.SYN > 0)
    answered = syn & ~segments["to_server"]
    repeated = np.flatnonzero(answered)
    first = timeline.previous(answered, repeated)
    confirmed = timeline.previous(
        here & segments["to_server"] & ~syn & (segments["tcp_flags"] & Flag.ACK > 0), repeated
    )
    unheard = (first >= 0) & (confirmed > first)
    repeated, confirmed = repeated[unheard], confirmed[unheard]
    awake = timeline.following(here & ~segments["to_server"] & ~syn, repeated)
    until = np.where(awake >= 0, time[np.maximum(awake, 0)], time[repeated])
    since = _first_of(exchange[repeated], time[confirmed])
    return Claims.of(Cause.ACCEPT_QUEUE, exchange[repeated], since, until, observed=False, evidence=repeated)


def _first_of(exchange: Ints, moments: Ints) -> Ints:
    """The earliest of the moments of each exchange, for each entry."""
    if not len(exchange):
        return moments
    earliest = np.full(int(exchange.max()) + 1, -NEVER)
    np.minimum.at(earliest, exchange, moments)
    return earliest[exchange]
