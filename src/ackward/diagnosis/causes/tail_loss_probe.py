"""``tail-loss-probe``: the last segment was unacknowledged for about two round trips and sent again (RFC 8985 7).

Useful, the time until the probe is what the loss cost. Spurious, and behind segments whose ACKs were due long before,
the wait until the probe was for an ACK that the peer held (``ack-holding``); the sender waited for a probe only from
there to its answer. Where the sender's kernel says that nothing was left to send, nobody waited at all.
"""

from __future__ import annotations

import numpy as np

from ackward.diagnosis.claims import NO_END, Claims, other
from ackward.diagnosis.holds import Waits
from ackward.diagnosis.losses import Trigger
from ackward.diagnosis.probing import Probes, Verdict, probes
from ackward.diagnosis.segmented import Bools, Ints
from ackward.model.causes import Cause
from ackward.model.segments import Kind


def claims(waits: Waits) -> list[Claims]:
    """Repairs with this trigger; where a probe repaired nothing, the held ACK before it and the wait for its answer."""
    timeline, found = waits.timeline, probes(waits.timeline)
    segments, time = timeline.segments, timeline.time
    idle = (segments["has_state"] & (segments["write_seq"] == segments["snd_nxt"]))[found.row]
    spurious = found.verdict == Verdict.SPURIOUS
    held = found.repeats & found.held & (found.verdict != Verdict.USEFUL)
    repaired = waits.losses
    # With no room at the receiver the sender waited for its window.
    explained = np.isin(repaired.row, found.row[held | (spurious & idle) | found.shut])
    repaired = repaired.chosen((repaired.trigger == Trigger.PROBE) & ~explained)
    useful = Claims.of(
        Cause.TAIL_LOSS_PROBE,
        repaired.exchange,
        repaired.since,
        time[repaired.row],
        observed=False,
        evidence=repaired.row,
        holding=repaired.vantage,
    )
    waiting = held & ~idle & ~found.shut & _had_more(waits, found)
    answered = found.chosen(waiting & spurious)
    shut = found.chosen(found.repeats & found.shut & (found.answer >= 0))
    waited = found.chosen(waiting)
    exchange = timeline.exchange[waited.row]
    due = np.minimum(time[waited.before] + timeline.min_rtt[exchange], time[waited.row])
    # Whether an undecided probe was needed is open; that the ACKs before it were held is not.
    until = np.where(waited.verdict == Verdict.SPURIOUS, time[waited.row], time[waited.answer])
    return [
        useful,
        _claim(
            Cause.TAIL_LOSS_PROBE,
            timeline.exchange[answered.row],
            answered,
            time[answered.row],
            time[answered.answer],
        ),
        _claim(Cause.ACK_HOLDING, exchange, waited, due, until),
        _claim(
            Cause.RECEIVE_WINDOW,
            timeline.exchange[shut.row],
            shut,
            time[shut.before],
            time[shut.answer],
        ),
    ]


def _had_more(waits: Waits, found: Probes) -> Bools:
    """Whether the sender went on in the same exchange when the answer had come."""
    timeline = waits.timeline
    more = timeline.following(timeline.fresh & (timeline.segments["kind"] == Kind.SENT), found.answer)
    exchange = timeline.exchange[found.row]
    went_on: Bools = (
        (exchange >= 0) & (found.answer >= 0) & (more >= 0) & (timeline.exchange[more] == exchange)
    )
    return went_on


def _claim(cause: Cause, exchange: Ints, found: Probes, start: Ints, end: Ints) -> Claims:
    return Claims.of(
        cause,
        exchange,
        start,
        end,
        observed=False,
        evidence=found.answer,
        holding=found.vantage,
        # A window that is shut is nobody's delay: it is named as the sender's kernel names it.
        delaying=NO_END if cause is Cause.RECEIVE_WINDOW else other(found.vantage),
    )
