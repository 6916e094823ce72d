"""What a round was spent on. The law: the parts tile the round, and none is ``unknown``.

As in a diagnosis: a hold by Nagle is a standoff if the ACK that ended it had been delayed (or a probe ended it), else
it is one round trip of ``nagle``; a sender out of window waits for the delayed ACK as long as that is being delayed.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from ackward.model.causes import Cause, End
from ackward.model.prediction import AckSettings, Wait
from ackward.predict.exchange import Delay, Hold, Log
from ackward.predict.sender import Obstacle

_Claim = tuple[int, int, Cause]
#: RFC 9293 3.8.6.3: an ACK at least for every second full segment. Who waits for more holds ACKs.
_EVERY_SECOND = 2


def ack_cause(settings: AckSettings) -> Cause:
    """What a wait for the server's ACK is called."""
    return Cause.ACK_HOLDING if settings.threshold > _EVERY_SECOND else Cause.DELAYED_ACK


def parts(log: Log, settings: AckSettings) -> dict[Cause, int]:
    """Nanoseconds of the round by cause, the largest first."""
    claims = list(dict.fromkeys(_claims(log, settings)))  # segments of one flight make one claim
    edges = {log.start, log.stop}
    edges |= {
        moment for start, stop, _ in claims for moment in (start, stop) if log.start < moment < log.stop
    }
    moments = sorted(edges)
    spent: Counter[Cause] = Counter()
    for start, stop in pairwise(moments):
        spent[_first(claims, start, stop)] += stop - start
    return dict(spent.most_common())


def _first(claims: list[_Claim], start: int, stop: int) -> Cause:
    return next((cause for begin, end, cause in claims if begin <= start and stop <= end), Cause.UNKNOWN)


def _claims(log: Log, settings: AckSettings) -> list[_Claim]:
    """Claims by priority."""
    nagle = [hold for hold in log.holds if hold.obstacle is Obstacle.NAGLE]
    window = [hold for hold in log.holds if hold.obstacle is Obstacle.WINDOW]
    claims = [(hold.start, hold.stop, _hold_cause(hold)) for hold in nagle]
    claims += [(start, stop, Cause.SERVER) for start, stop in log.thinking]
    for hold in window:
        claims += [
            (max(hold.start, delay.start), min(hold.stop, delay.stop), _delay_cause(delay, settings))
            for delay in log.delays
            if delay.end is not hold.end and delay.start < hold.stop and hold.start < delay.stop
        ]
    claims += [(hold.start, hold.stop, _hold_cause(hold)) for hold in window]
    claims += [
        (flight.at, flight.arrives, Cause.NETWORK)
        for flight in log.flights
        if flight.data and not flight.data.again
    ]
    awaited = [(delay.start, delay.stop, _delay_cause(delay, settings)) for delay in log.delays]
    flights = [(flight.at, flight.arrives, Cause.NETWORK) for flight in log.flights]
    # One way, the round ends with the last ACK: then it is the delay that the wire hides, not the other way round.
    return claims + (flights + awaited if settings.answer else awaited + flights)


def _hold_cause(hold: Hold) -> Cause:
    if hold.obstacle is Obstacle.NAGLE:
        return Cause.STANDOFF if hold.delayed else Cause.NAGLE
    return Cause.SLOW_START if hold.slow_start else Cause.CONGESTION_WINDOW


def _delay_cause(delay: Delay, settings: AckSettings) -> Cause:
    return ack_cause(settings) if delay.end is End.SERVER else Cause.DELAYED_ACK


def waits(log: Log, settings: AckSettings) -> list[Wait]:
    """Who waited for what in the round, in words; times from its start."""
    found = [_hold_wait(hold, log, settings) for hold in log.holds if hold.stop > hold.start]
    held = [(wait.start_ns, wait.end_ns) for wait in found]
    if not settings.answer:
        for delay in log.delays:
            start, stop = max(delay.start, log.start) - log.start, delay.stop - log.start
            if delay.end is End.SERVER and not any(a < stop and start < b for a, b in held):
                words = f"the client waits for the last ACK; the server's kernel keeps it until {delay.until.value}"
                found.append(
                    Wait(
                        cause=_delay_cause(delay, settings),
                        start_ns=start,
                        end_ns=stop,
                        waiting=End.CLIENT,
                        words=words,
                    )
                )
    return sorted(found, key=lambda wait: wait.start_ns)


def _hold_wait(hold: Hold, log: Log, settings: AckSettings) -> Wait:
    peer = End.SERVER if hold.end is End.CLIENT else End.CLIENT
    what = (
        "data because a small segment is not acknowledged (Nagle)"
        if hold.obstacle is Obstacle.NAGLE
        else "data because the congestion window is full"
    )
    delay = next(
        (each for each in log.delays if each.end is peer and hold.start < each.stop <= hold.stop), None
    )
    if hold.probed:
        why = f"the {peer}'s kernel sits on the ACK, and a tail-loss probe takes the data along"
    elif delay and hold.delayed:
        why = f"the {peer}'s kernel keeps the ACK until {delay.until.value}"
    else:
        why = "the ACK comes at once, one round trip away"
    cause = _hold_cause(hold)
    if hold.obstacle is Obstacle.WINDOW and delay and hold.delayed:
        cause = _delay_cause(delay, settings)
    return Wait(
        cause=cause,
        start_ns=hold.start - log.start,
        end_ns=hold.stop - log.start,
        waiting=hold.end,
        words=f"the {hold.end}'s kernel holds {what}; {why}",
    )
