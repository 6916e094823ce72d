"""``handshake``: from the client's SYN until its connection is established (RFC 9293 3.5)."""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.model.causes import Cause
from ackward.model.segments import Flag, Kind, Vantage


def claims(waits: Waits) -> list[Claims]:
    """Seen by the client's kernel; from the server, the round trip before its ESTABLISHED."""
    timeline = waits.timeline
    segments = timeline.segments
    established = (segments["kind"] == Kind.ESTABLISHED) & (timeline.exchange >= 0)
    at_client = np.flatnonzero(established & timeline.at(Vantage.CLIENT))
    syn = (
        (segments["kind"] == Kind.SENT) & (segments["tcp_flags"] & Flag.SYN > 0) & timeline.at(Vantage.CLIENT)
    )
    sent = timeline.previous(syn, at_client)
    at_client, sent = at_client[sent >= 0], sent[sent >= 0]
    seen = Claims.of(
        Cause.HANDSHAKE,
        timeline.exchange[at_client],
        timeline.time[sent],
        timeline.time[at_client],
        observed=True,
        evidence=sent,
    )
    # Packets alone: until the SYN-ACK is there.
    packets = ~segments["has_state"] & (timeline.exchange >= 0) & (segments["tcp_flags"] & Flag.SYN > 0)
    answer = np.flatnonzero(packets & ~segments["to_server"])
    asked = timeline.previous(packets & segments["to_server"], answer)
    answer, asked = answer[asked >= 0], asked[asked >= 0]
    half = np.where(
        timeline.estimated[timeline.exchange[answer]], timeline.min_rtt[timeline.exchange[answer]] // 2, 0
    )
    shown = Claims.of(
        Cause.HANDSHAKE,
        timeline.exchange[answer],
        timeline.start[timeline.exchange[answer]],
        timeline.time[answer] + half,
        observed=False,
        evidence=asked,
    )
    at_server = np.flatnonzero(established & timeline.at(Vantage.SERVER))
    at_server = at_server[timeline.estimated[timeline.exchange[at_server]]]
    exchange = timeline.exchange[at_server]
    half = timeline.min_rtt[exchange] // 2
    felt = Claims.of(
        Cause.HANDSHAKE,
        exchange,
        timeline.start[exchange],
        timeline.time[at_server] - half,
        observed=False,
        evidence=at_server,
    )
    return [seen, shown, felt]
