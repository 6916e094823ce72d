"""What is said of held ACKs and of tail-loss probes: why, with the evidence, and what would help."""

from __future__ import annotations

from ackward.diagnosis.ack_policy import AckPolicy
from ackward.diagnosis.probe_story import Story
from ackward.diagnosis.probing import Sign, Verdict
from ackward.model.causes import Cause
from ackward.model.tcp_constants import RTO_MIN_NS
from ackward.model.units import duration

#: For the end that acknowledges, and for the end that sends.
RECEIVER_ADVICE = (
    "acknowledge every second segment at least: with Onload set EF_DYNAMIC_ACK_THRESH=0 AND "
    "EF_DELACK_THRESH=0 (the first is "
    "16 unless set and overrides the second; both must be 0 for an ACK a segment), at the cost of "
    "more ACKs to send. A "
    "Linux receiver: a shorter delayed ACK (TCP_DELACK_MAX_US, or `quickack 1` on the route), at the "
    "same cost"
)
SENDER_ADVICE = (
    "net.ipv4.tcp_early_retrans=0 sends no probes at all, but then a lost tail costs a whole "
    "retransmission timeout, 200 ms "
    "or more; a larger rto_min on the route spares only a segment that is alone in flight, and makes "
    "every timeout later. "
    "Do not lower rto_min below the peer's ACK delay: then each segment that is alone draws a "
    "needless probe, or a timeout"
)
LOSS_ADVICE = (
    "if the segment was lost, find where the path loses packets; if it had arrived, let the receiver "
    "acknowledge at once "
    "(Onload: EF_DYNAMIC_ACK_THRESH=0 and EF_DELACK_THRESH=0)"
)

_SIGNS = {
    Sign.ARRIVAL: "{} seen to arrive twice",
    Sign.DSACK: "{} by D-SACK",
    Sign.TIMING: "{} because the ACK came sooner than the probe's answer could",
    Sign.SECOND_ACK: "{} by a second ACK of the same",
}


def why(cause: Cause, holder: str, delayer: str, time: str) -> str:
    """The first sentences of a finding; ``time`` is the median."""
    if cause == Cause.ACK_HOLDING:
        return (
            f"The {delayer} acknowledged less often than every second segment, and the {holder} was "
            "out of window "
            f"meanwhile: {time} (median) a time."
        )
    return (
        f"The last segment that the {holder} had in flight went unacknowledged. After {time} (median) "
        "it sent that "
        "segment again as a probe: either it was lost, or the acknowledgement took longer than two "
        "round trips."
    )


NEEDLESS = (
    "The {sender} sent the last segment that it had in flight again as a tail-loss probe although it "
    "had arrived: the "
    "acknowledgement took longer than the probe's timer. No exchange was longer for it; it costs "
    "bandwidth, and where the "
    "receiver sends no D-SACK it costs a part of the congestion window each time (tcp_process_tlp_ack())."
)


def evidence(found: Story) -> str:
    """What the packets show: the peer's rules, the probes and what they were good for, and their timer."""
    sentences = [_policy(found.policy), _probes(found), _timer(found), _trap(found.policy)]
    return " ".join(sentence for sentence in sentences if sentence)


def _policy(seen: AckPolicy) -> str:
    if not seen.holds:
        return ""
    rules = []
    if seen.threshold is not None:
        rules.append(
            f"after {seen.threshold} segments ({seen.counted} of {seen.forced} ACKs that took three "
            "or more at once)"
        )
    if seen.timer_ns is not None:
        held = f"; up to {seen.most_held} segments waited so" if seen.most_held > 1 else ""
        rules.append(
            f"{duration(seen.timer_ns)} after the first segment that it takes (median of {seen.late} ACKs{held})"
        )
    more = "" if seen.threshold is not None else f" Its threshold is more than {seen.most_held} segments."
    return (
        f"The peer's ACK leaves {', or '.join(rules)}.{more} That is {seen.likeness} Onload's "
        "EF_DYNAMIC_ACK_THRESH, or a "
        f"link or network card that thins ACKs; RFC 9293 3.8.6.3 asks for one every second segment."
    )


def _probes(found: Story) -> str:
    if not found.probes:
        return ""
    number = found.verdicts
    signs = ", ".join(
        _SIGNS[sign].format(count) for sign, count in sorted(found.signs.items()) if sign in _SIGNS
    )
    where = "" if found.looked_at == found.flows else f" on {found.looked_at} of {found.flows} connections"
    return (
        f"Tail-loss probes of the {found.sender}{where}: {found.probes}, of them "
        f"{number[Verdict.NEW_DATA]} with new data, "
        f"{number[Verdict.SPURIOUS]} spurious{f' ({signs})' if signs else ''}, "
        f"{number[Verdict.USEFUL]} useful, "
        f"{number[Verdict.UNDECIDED]} undecided."
    )


def _timer(found: Story) -> str:
    if found.expected_ns is None or found.seen_ns is None or found.expected_alone_ns is None:
        return ""
    least = "" if found.told else "at least "
    return (
        "With several segments in flight a probe leaves after 2 SRTT + 2 ms, here "
        f"{least}{duration(found.expected_ns)} rounded up by "
        f"one or two ticks ({duration(found.seen_ns)} seen, medians); with exactly one after 2 SRTT + "
        "rto_min, but no later than the "
        f"retransmission timeout, {least}{duration(found.expected_alone_ns)} (tcp_schedule_loss_probe())."
    )


def _trap(seen: AckPolicy) -> str:
    if seen.timer_ns is None or seen.timer_ns >= RTO_MIN_NS:
        return ""
    return f"An rto_min below {duration(seen.timer_ns)} would make probes of single segments spurious too."
