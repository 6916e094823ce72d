"""What the sender's Nagle, probes and timeouts and the receiver's ACK policy do to each other: a discrete-event model.

Laws, each held by a property test:

- Time is causal: nothing happens before what caused it, and no segment is acknowledged before it arrived.
- An ACK leaves once: no timer fires for an ACK that was sent, and no two timers for the same one.
- The parts of a round add up to it exactly, and none is ``unknown``.
- With Nagle off, an ACK for each segment and room in the window, a message and its answer take one round trip.
- With timers that fire exactly (``tick_ns`` 0) a longer round trip never makes the rounds shorter, as long as no probe
  or timeout fires and answers come within the delayed-ACK time (else the connection stops being interactive, and
  its ACKs come at once). With ticks a timer's phase may gain up to one jiffy.

The rules are Linux's, each named with its kernel function or RFC where it stands: ``sender.py`` (Nagle, window, probe,
timeout), ``receiver.py`` (the ACK policies), ``round_trip.py`` (SRTT, RTO), ``timers.py`` (ticks), ``exchange.py``
(the wire and the two programs). What the model leaves out: :data:`NOT_MODELLED`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ackward.model.causes import STALLS, Cause, End
from ackward.model.prediction import AckPrediction, AckSettings, Alternative, Round
from ackward.model.report import Ladder, LadderStep, Stall
from ackward.model.tcp_constants import RTO_MIN_NS
from ackward.predict import ack_words
from ackward.predict.exchange import Exchange, Log
from ackward.predict.waits import parts, waits

NOT_MODELLED = (
    "loss and reordering (here no probe is useful)",
    "the link's rate, queues, pacing, autocorking, the time of programs and kernels",
    "segmentation offload (merged segments get one ACK where the model counts several)",
    "the receive window",
    "a delayed-ACK time that adapts (ato)",
    "congestion control beyond slow start and Reno's growth",
)
#: A remedy for the receiver's delay that stays within the kernel's limits: two jiffies (TCP_TIMEOUT_MIN).
_SHORT_DELACK_TICKS = 2
_RATHER_SHORT_NS = 8_000_000


def predict(settings: AckSettings) -> AckPrediction:
    """Run the model, and once more for each setting that might avoid the wait."""
    logs, rounds = _run(settings)
    p50 = _median(rounds)
    usual = next(index for index, each in enumerate(rounds) if each.elapsed_ns == p50)
    needless = [index for index, each in enumerate(rounds) if each.spurious_probes or each.timeouts]
    shown = needless[len(needless) // 2] if needless else usual
    causes: Counter[Cause] = Counter()
    for each in rounds:
        causes.update(each.causes)
    alternatives = _alternatives(settings, rounds)
    found = waits(logs[shown], settings)
    return AckPrediction(
        settings=settings,
        p50_ns=p50,
        elapsed_ns=sum(each.elapsed_ns for each in rounds),
        causes=dict(causes.most_common()),
        rounds=rounds,
        shown=shown,
        ladder=_ladder(logs[shown], [(wait.start_ns, wait.end_ns, wait.cause) for wait in found]),
        waits=found,
        alternatives=alternatives,
        verdict=ack_words.verdict(settings, rounds, waits(logs[usual], settings), alternatives),
        not_modelled=list(NOT_MODELLED),
    )


def _run(settings: AckSettings) -> tuple[list[Log], list[Round]]:
    logs = Exchange(settings).run()
    rounds = [
        Round(
            elapsed_ns=log.stop - log.start,
            causes=parts(log, settings),
            acks=log.acks,
            acks_by_timer=log.acks_by_timer,
            probes=log.probes,
            spurious_probes=log.spurious_probes,
            timeouts=log.timeouts,
        )
        for log in logs
    ]
    return logs, rounds


def _median(rounds: list[Round]) -> int:
    """The time of a round that is there: of an even number the higher one of the two in the middle."""
    return sorted(each.elapsed_ns for each in rounds)[len(rounds) // 2]


_Change = tuple[str, End, str, dict[str, Any]]


def _changes(settings: AckSettings, rounds: list[Round]) -> Iterator[_Change]:
    """What might avoid the wait: the remedies of this project first, then settings of the ends."""
    if settings.threshold:
        words = "an ACK for each segment (Onload: EF_DYNAMIC_ACK_THRESH=0 and EF_DELACK_THRESH=0)"
        yield "threshold 1", End.SERVER, words, {"threshold": 1}
        yield "threshold 0", End.SERVER, "the rules of Linux", {"threshold": 0}
    elif not settings.quickack:
        yield "quickack", End.SERVER, "`ackward fix quickack`", {"quickack": True}
    if settings.nagle:
        yield "nodelay", End.CLIENT, "TCP_NODELAY", {"nagle": False}
    if len(settings.writes) > 1:
        yield "one write", End.CLIENT, "the message in one write", {"writes": (sum(settings.writes),)}
    short = max(_SHORT_DELACK_TICKS * settings.tick_ns, _RATHER_SHORT_NS)
    if not settings.quickack and not settings.threshold and settings.delack_ns > short:
        yield "delack", End.SERVER, f"TCP_DELACK_MAX_US {short // 1000}", {"delack_ns": short}
    if settings.rto_min_ns < RTO_MIN_NS:
        yield "rto_min", End.CLIENT, "rto_min 200ms, Linux's own", {"rto_min_ns": RTO_MIN_NS}
    if settings.tlp and any(each.spurious_probes for each in rounds):
        yield "no probes", End.CLIENT, "net.ipv4.tcp_early_retrans=0", {"tlp": False}


def _alternatives(settings: AckSettings, rounds: list[Round]) -> list[Alternative]:
    """The fastest first; what changes neither time nor probes is left out."""
    found = []
    now = _measure(rounds)
    for name, end, words, changed in _changes(settings, rounds):
        _, others = _run(settings.model_copy(update=changed))
        then = _measure(others)
        if then == now:
            continue
        p50, spurious, timeouts = then
        found.append(
            Alternative(
                name=name,
                end=end,
                setting=words,
                p50_ns=p50,
                saves_ns=now[0] - p50,
                spurious_probes=spurious,
                timeouts=timeouts,
            )
        )
    return sorted(found, key=lambda each: (each.p50_ns, each.spurious_probes + each.timeouts))


def _measure(rounds: list[Round]) -> tuple[int, int, int]:
    """Median time, spurious probes, timeouts."""
    spurious = sum(each.spurious_probes for each in rounds)
    return _median(rounds), spurious, sum(each.timeouts for each in rounds)


def _ladder(log: Log, found: list[tuple[int, int, Cause]]) -> Ladder:
    """The round as the reports draw one; times and stream offsets from its start."""

    def moved(step: LadderStep) -> LadderStep:
        arrives = step.arrives_ns - log.start if step.arrives_ns is not None else None
        return step.model_copy(update={"at_ns": step.at_ns - log.start, "arrives_ns": arrives})

    steps = [
        moved(step) for step in log.steps if step.at_ns < log.stop or step.bytes or log.stop == log.start
    ]
    stalls = [
        Stall(start_ns=start, end_ns=stop, label=cause) for start, stop, cause in found if cause in STALLS
    ]
    return Ladder(elapsed_ns=log.stop - log.start, steps=steps, stalls=stalls)
