"""What a report says, in plain words: the same words for the page and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ackward.model import names, units
from ackward.model.causes import Cause, End, Grade
from ackward.model.report import Finding, Process, Remedy, Report
from ackward.model.verdict import Measure, Phase, Verdict

#: What each cause is, in one sentence for a reader who knows TCP only as the thing that carries his requests.
MEANINGS: dict[Cause, str] = {
    Cause.HANDSHAKE: "The connection was being opened: SYN and SYN-ACK go before the first byte can.",
    Cause.NETWORK: "Bytes were on their way between the two hosts.",
    Cause.STANDOFF: "One end holds a small piece of data until the previous one is acknowledged (Nagle's "
    "rule), while the other waits for more data before it acknowledges (delayed ACK): both wait for a timer.",
    Cause.NAGLE: "Nagle's rule held a small piece of data until the previous one was acknowledged; the ACK "
    "came at once, so it cost one round trip.",
    Cause.DELAYED_ACK: "A sender with no window left waited for an ACK that the receiver was delaying.",
    Cause.ACK_HOLDING: "The receiver acknowledges less often than every second segment; the sender runs dry.",
    Cause.TAIL_LOSS_PROBE: "The last segments stayed unacknowledged until a probe sent one of them again.",
    Cause.RETRANSMISSION_TIMEOUT: "A segment was lost, and only the retransmission timer noticed.",
    Cause.FAST_RETRANSMIT: "A segment was lost and sent again after the receiver's ACKs gave it away.",
    Cause.SLOW_START: "The sender was still finding out how much the path carries, one round trip at a time.",
    Cause.IDLE_RESTART: "After a pause the sender began again with a small window, as if the path were new.",
    Cause.CONGESTION_WINDOW: "The congestion window was full: no more bytes were allowed onto the path.",
    Cause.PACING: "The sender spread its segments over time on purpose.",
    Cause.RECEIVE_WINDOW: "The receiver's window was full: the program there did not read fast enough.",
    Cause.HOST_QUEUE: "Bytes waited inside the sending host: autocorking, small queues or a traffic shaper.",
    Cause.ACCEPT_QUEUE: "The server's accept queue was full: the program there did not accept fast enough.",
    Cause.CLIENT: "The client's program was working or waiting; TCP had nothing to do.",
    Cause.SERVER: "The server's program was working or waiting; TCP had nothing to do.",
    Cause.UNKNOWN: "What was seen does not tell.",
}

GRADES: dict[Grade, str] = {
    Grade.OBSERVED: "observed: the kernel said so",
    Grade.INFERRED: "inferred from the timing of segments",
    Grade.UNKNOWN: "no claim could be made",
}

#: What the end that is kept from sending does, where Nagle's algorithm or TCP_CORK is not what keeps it.
_WAITS: dict[Cause, str] = {
    Cause.DELAYED_ACK: "waits for an ACK before it may send more",
    Cause.ACK_HOLDING: "waits for an ACK before it may send more",
    Cause.TAIL_LOSS_PROBE: "sends again when its probe timer fires",
    Cause.RETRANSMISSION_TIMEOUT: "waits for its retransmission timer",
    Cause.FAST_RETRANSMIT: "sends again what was lost",
    Cause.SLOW_START: "waits for its window to grow",
    Cause.IDLE_RESTART: "waits for its window to grow",
    Cause.CONGESTION_WINDOW: "waits for its congestion window",
    Cause.PACING: "spreads its segments",
    Cause.RECEIVE_WINDOW: "waits until the other end reads",
    Cause.HOST_QUEUE: "queues what it sends",
}

_ABOUT_ACKS = frozenset({Cause.STANDOFF, Cause.DELAYED_ACK, Cause.ACK_HOLDING})


@dataclass(frozen=True)
class Part:
    """One cause's part of the time of all exchanges; ``start`` and ``width`` are fractions of the whole."""

    cause: Cause
    ns: int
    exchanges: int
    start: float
    width: float
    share: str


def partition(report: Report) -> list[Part]:
    """The causes that took any time, largest first."""
    parts: list[Part] = []
    before = 0
    for cause, total in sorted(report.causes.items(), key=lambda item: (-item[1].ns, item[0])):
        if total.ns == 0:
            continue
        whole = report.elapsed_ns
        parts.append(
            Part(
                cause,
                total.ns,
                total.exchanges,
                before / whole,
                total.ns / whole,
                units.share(total.ns, whole),
            )
        )
        before += total.ns
    return parts


def headline(report: Report) -> str:
    """The report in one line: its costliest finding, or that there is none and where the time went."""
    if report.findings:
        worst = worst_first(report)[0]
        return f"{cost(worst, report)}: {worst.cause}. {blame(worst)}".rstrip()
    if report.exchanges == 0:
        return "No exchange was seen, so there is nothing to explain."
    parts = partition(report)
    spent = f"{units.plural(report.exchanges, 'exchange')} took {units.duration(report.elapsed_ns)}"
    if not parts:
        return f"Nothing waits on a rule of TCP: {spent}."
    return f"Nothing waits on a rule of TCP: {spent}, {parts[0].share} of it {parts[0].cause}."


def worst_first(report: Report) -> list[Finding]:
    """The findings, the one that lost most first."""
    return sorted(report.findings, key=lambda finding: -finding.lost_ns.total)


def cost(finding: Finding, report: Report) -> str:
    """What a finding costs: ``44.0 ms lost on 59 of 60 exchanges``."""
    where = f"{units.count(finding.exchanges)} of {units.plural(report.exchanges, 'exchange')}"
    lost = units.duration(finding.lost_ns.p50) if finding.lost_ns.total else "no time"
    return f"{lost} lost on {where}"


def gain(remedy: Remedy, finding: Finding) -> str:
    """What a remedy would do: ``would save 2.6 s of 2.6 s: one such exchange takes 0.3 ms instead of 43.9 ms``."""
    if not remedy.saves_ns:
        return ""
    saved = f"would save {units.duration(remedy.saves_ns)} of {units.duration(finding.lost_ns.total)}"
    if remedy.typical_ns is None or finding.ladder is None:
        return saved
    now = units.duration(finding.ladder.elapsed_ns)
    return f"{saved}: one such exchange takes {units.duration(remedy.typical_ns)} instead of {now}"


def blame(finding: Finding) -> str:
    """Who does what, as a sentence; empty if no end is to blame."""
    ends = sorted(End, key=lambda end: end is not finding.holding_end)
    deeds = [f"the {end} {role(finding, end)}" for end in ends if role(finding, end)]
    words = ", ".join(deeds)
    return f"{words[0].upper()}{words[1:]}." if words else ""


def role(finding: Finding, end: End) -> str:
    """What ``end`` does in ``finding``; empty if it does nothing that matters."""
    return " and ".join(_deeds(finding, end))


def owner(process: Process | None) -> str:
    """Who owns an end, in one line, made visible; empty if nobody knows."""
    if process is None:
        return ""
    parts = []
    if process.command:
        parts.append(process.command)
    if process.pid is not None:
        parts.append(f"pid {process.pid}")
    if process.container_name:
        parts.append(f"in container {process.container_name} ({process.container})")
    elif process.container:
        parts.append(f"in container {process.container}")
    if process.pod:
        parts.append(f"of pod {process.pod} on node {process.node}")
    elif process.netns:
        parts.append(f"in namespace {process.netns}")
    return names.visible(" ".join(parts))


def before_and_after(verdict: Verdict) -> str:
    """The ratio of the medians with its interval, in words."""
    low, high = units.ratio(verdict.ratio_low), units.ratio(verdict.ratio_high)
    return (
        f"median after / median before = {units.ratio(verdict.ratio)} "
        f"({verdict.confidence * 100:g} % confidence: {low} to {high})"
    )


def measures(verdict: Verdict | None, phases: Sequence[Phase]) -> list[tuple[str, Measure]]:
    """The rows of the before-and-after table; without phases the two that the verdict carries."""
    if phases or verdict is None:
        return [(phase.name, phase.measure) for phase in phases]
    return [("before", verdict.before), ("after", verdict.after)]


def _deeds(finding: Finding, end: End) -> list[str]:
    deeds = []
    if finding.holding_end is end:
        deeds.append(_WAITS.get(finding.cause, "holds data back"))
    if finding.delaying_end is end:
        deeds.append("delays the ACK" if finding.cause in _ABOUT_ACKS else "keeps the other waiting")
    return deeds
