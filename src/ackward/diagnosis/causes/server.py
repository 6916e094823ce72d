"""``server``: the server's program had the whole request and had not answered.

The server's kernel knows (:mod:`ackward.diagnosis.pauses`). From the client alone, it is the wait for the answer
less one smallest round trip.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import Claims
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.pauses import program_pauses
from ackward.model.causes import Cause
from ackward.model.segments import Kind, Vantage


def claims(waits: Waits) -> list[Claims]:
    """Waits for an answer, and pauses of the server inside one."""
    timeline = waits.timeline
    segments, time, exchange = timeline.segments, timeline.time, timeline.exchange
    here = timeline.at(Vantage.CLIENT) & timeline.fresh & (exchange >= 0)
    row = np.flatnonzero(here & (segments["kind"] == Kind.RECEIVED))
    row = row[~timeline.has_server[exchange[row]]]
    asked = timeline.previous(here & (segments["kind"] == Kind.SENT), row)
    answered = timeline.previous(here & (segments["kind"] == Kind.RECEIVED), row)
    first = (asked >= 0) & (asked > answered) & (exchange[np.maximum(asked, 0)] == exchange[row])
    row, asked = row[first], asked[first]
    half = timeline.min_rtt[exchange[row]] // 2
    felt = Claims.of(
        Cause.SERVER, exchange[row], time[asked] + half, time[row] - half, observed=False, evidence=row
    )
    return [program_pauses(waits, Vantage.SERVER, Cause.SERVER), felt]
