"""The verdict of the ACK model in sentences: the round's time, who waits for whom, the probes, what would help."""

from __future__ import annotations

from ackward.model.prediction import AckSettings, Alternative, Round, Wait
from ackward.model.tcp_constants import RTO_MIN_NS
from ackward.model.units import duration, plural
from ackward.predict.exchange import rto_min_ns
from ackward.predict.sender import TIMEOUT_MIN_NS

_MILLISECOND = 1_000_000
#: A round that costs this much more than the least possible is worth a word.
_WORTH_NS = 1_000


def verdict(
    settings: AckSettings, rounds: list[Round], waits: list[Wait], alternatives: list[Alternative]
) -> list[str]:
    """Sentences, the most important first; ``waits`` are those of a median round."""
    said = [_result(settings, rounds, waits)]
    said += _probes(settings, rounds)
    said += _trap(settings, rounds)
    faster = [each for each in alternatives if each.saves_ns >= _WORTH_NS]
    if faster:
        listed = ", ".join(f"with {each.name} at the {each.end} {duration(each.p50_ns)}" for each in faster)
        said.append(f"{listed[0].upper()}{listed[1:]}.")
    if any(each.spurious_probes or each.timeouts for each in rounds):
        calm = [each.name for each in alternatives if not each.spurious_probes and not each.timeouts]
        if calm:
            said.append(f"Nothing would be repeated in vain with {' or '.join(calm)}.")
    return said


def _set(ns: int) -> str:
    """A time that follows from the settings alone: exact, in milliseconds; microseconds below a tenth of one."""
    return f"{ns / _MILLISECOND:,.12g} ms" if ns >= _MILLISECOND // 10 else f"{ns / 1000:,.12g} us"


def _result(settings: AckSettings, rounds: list[Round], waits: list[Wait]) -> str:
    p50 = sorted(each.elapsed_ns for each in rounds)[len(rounds) // 2]
    what = "request" if settings.answer else "message"
    fast = sum(each.elapsed_ns < p50 // 2 for each in rounds)
    exceptions = f" ({fast} of {len(rounds)} in less than half of that)" if fast else ""
    said = f"Each {what} takes {duration(p50)} in the median{exceptions}"
    longest = max(waits, key=lambda wait: wait.end_ns - wait.start_ns, default=None)
    if longest is None or longest.end_ns - longest.start_ns < _WORTH_NS:
        return f"{said}: nothing waits on a rule of TCP."
    waited = longest.end_ns - longest.start_ns
    return f"{said}, {duration(waited)} of it {longest.cause}: {longest.words}."


def _probes(settings: AckSettings, rounds: list[Round]) -> list[str]:
    spurious = sum(each.spurious_probes for each in rounds)
    useful = sum(each.probes for each in rounds) - spurious
    timeouts = sum(each.timeouts for each in rounds)
    said = []
    if spurious:
        several = 2 * settings.rtt_ns + TIMEOUT_MIN_NS
        alone = 2 * settings.rtt_ns + rto_min_ns(settings)
        said.append(
            f"{plural(spurious, 'tail-loss probe')} in {len(rounds)} rounds, spurious: the data had arrived and "
            f"its ACK was waiting. The probe fires after 2 SRTT + 2 ms (at first {_set(several)}) with "
            f"several segments in flight, 2 SRTT + rto_min ({_set(alone)}) with one; the receiver may sit on an "
            f"ACK for {_set(settings.delack_ns)}."
        )
        last = max(index for index, each in enumerate(rounds) if each.spurious_probes)
        if last < len(rounds) - 1:
            said.append(
                f"After round {last + 1} they stop: the held ACKs have raised SRTT until the receiver's timer "
                f"comes first. Prompt ACKs in between would bring them back."
            )
        said.append("Each one makes the receiver acknowledge at once, which ends the wait.")
    if useful:
        said.append(
            f"{plural(useful, 'tail-loss probe')} in {len(rounds)} rounds sent data that was being held: the probe "
            f"heeds neither Nagle nor the window."
        )
    if timeouts:
        said.append(
            f"{plural(timeouts, 'retransmission timeout')} in {len(rounds)} rounds, spurious: nothing was lost, "
            f"the ACK was waiting. Each one collapses the window until the sender sees its error."
        )
    return said


def _trap(settings: AckSettings, rounds: list[Round]) -> list[str]:
    """Lowering rto_min below the peer's ACK delay."""
    needless = any(each.spurious_probes or each.timeouts for each in rounds)
    delay = settings.delack_ns + settings.tick_ns
    at_once = settings.quickack or settings.threshold == 1
    if rto_min_ns(settings) >= delay or settings.rto_min_ns >= RTO_MIN_NS or at_once:
        return []
    effect = "That is why probes or timeouts repeat data here" if needless else "Probes may repeat data"
    least = -(-delay // _MILLISECOND)
    below = f"rto_min {_set(settings.rto_min_ns)} is below the peer's ACK delay of {_set(settings.delack_ns)}"
    cure = f"rto_min {least}ms or more, or an ACK that comes at once, avoids it"
    return [f"Trap: {below} (and a tick). {effect} wherever one segment is alone in flight; {cure}."]
