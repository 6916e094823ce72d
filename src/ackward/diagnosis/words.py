"""What a finding says in words: why the time was lost, and what gets it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.flows import Flow
from ackward.diagnosis.segmented import Ints
from ackward.model.causes import Cause, End
from ackward.model.report import Remedy
from ackward.model.segments import Owner


@dataclass(frozen=True)
class Loss:
    """The stalled parts of one finding: one entry an exchange, in nanoseconds. ``round_trip`` is the smallest one."""

    stalled: Ints
    round_trip: Ints
    holding: End | None
    delaying: End | None

    @property
    def typical_ns(self) -> int:
        """The median stall."""
        return int(np.median(self.stalled))

    @property
    def saved_by_prompt_ack(self) -> Ints:
        """An ACK that comes at once still takes one round trip."""
        saved: Ints = np.maximum(self.stalled - self.round_trip, 0)
        return saved


def _duration(ns: int) -> str:
    return f"{ns / 1e6:.1f} ms" if ns >= 100_000 else f"{ns / 1e3:.0f} us"


def why(cause: Cause, loss: Loss) -> str:
    """One paragraph. Names the two ends, who holds and who delays, and the rule of TCP behind it."""
    holder, delayer = loss.holding or "sender", loss.delaying or "receiver"
    time = _duration(loss.typical_ns)
    texts = {
        Cause.STANDOFF: (
            f"The {holder} wrote its message in more than one piece. Its kernel sent the first and held the "
            f"rest, as Nagle's "
            f"algorithm demands while a small segment is unacknowledged. The {delayer}'s kernel delayed that "
            f"acknowledgement "
            f"so that it could ride on the answer, but its program cannot answer half a message. Both waited "
            f"for each other "
            f"until the {delayer}'s delayed-ACK timer fired: {time} (median), again and again, with nothing "
            f"on the wire."
        ),
        Cause.NAGLE: (
            f"The {holder} wrote its message in more than one piece. Its kernel held the later piece until "
            f"the earlier one "
            f"was acknowledged (Nagle's algorithm). The acknowledgement came at once, so each message lost "
            f"one round trip: {time}."
        ),
        Cause.DELAYED_ACK: (
            f"The {holder}'s congestion window was full. The {delayer}'s kernel had the data and delayed the "
            f"acknowledgement "
            f"that would have opened it, until its delayed-ACK timer fired: {time} (median)."
        ),
        Cause.RECEIVE_WINDOW: (
            f"The {holder} had data to send and the other end no room to take it: its program reads more "
            f"slowly than the "
            f"data comes, or its receive buffer is small for this path. {time} (median) a time."
        ),
        Cause.CONGESTION_WINDOW: (
            f"The {holder} had more to send than its congestion window allowed in flight, and waited for "
            f"acknowledgements: "
            f"{time} (median) an exchange."
        ),
        Cause.HOST_QUEUE: (
            f"The {holder}'s own host kept the data queued below TCP (autocorking, small-queue limit, qdisc): "
            f"{time} (median)."
        ),
    }
    return texts[cause]


def remedies(cause: Cause, loss: Loss, flow: Flow) -> list[tuple[Remedy, Ints]]:
    """What would help at which end, best first, each with what it saves per exchange."""
    found: list[tuple[Remedy, Ints]] = []

    def add(
        name: str, end: End, saves: Ints, *, command: str | None = None, advice: str | None = None
    ) -> None:
        remedy = Remedy(name=name, end=end, saves_ns=int(saves.sum()), command=command, advice=advice)
        found.append((remedy, saves))

    if cause in (Cause.STANDOFF, Cause.DELAYED_ACK) and loss.delaying:
        add(
            "quickack", loss.delaying, loss.saved_by_prompt_ack, command=quickack_command(flow, loss.delaying)
        )
    if cause in (Cause.STANDOFF, Cause.NAGLE) and loss.holding:
        text = (
            "set TCP_NODELAY in the program, or hand a whole message to one write (writev, a buffered stream): "
            "then nothing is held, whatever the other end does"
        )
        add("nodelay", loss.holding, loss.stalled, advice=text)
    if cause == Cause.RECEIVE_WINDOW and loss.holding:
        reader = End.SERVER if loss.holding == End.CLIENT else End.CLIENT
        add(
            "advice",
            reader,
            loss.stalled,
            advice="read faster, or raise net.ipv4.tcp_rmem (and drop a fixed SO_RCVBUF) there",
        )
    if cause == Cause.CONGESTION_WINDOW and loss.holding:
        text = (
            "start with a larger window (ip route ... initcwnd), and keep it over pauses "
            "(net.ipv4.tcp_slow_start_after_idle=0)"
        )
        add("advice", loss.holding, loss.saved_by_prompt_ack, advice=text)
    if cause == Cause.HOST_QUEUE and loss.holding:
        add(
            "advice",
            loss.holding,
            loss.stalled,
            advice="try net.ipv4.tcp_autocorking=0; look at the qdisc with `tc -s qdisc`",
        )
    # Within 5 %, what can be done now comes before what needs a changed program.
    best = max((remedy.saves_ns for remedy, _ in found), default=0)
    return sorted(
        found,
        key=lambda entry: (entry[0].saves_ns < 0.95 * best, entry[0].command is None, -entry[0].saves_ns),
    )


def quickack_command(flow: Flow, end: End) -> str:
    """The command line that makes ``end`` acknowledge at once, for just this service."""
    facts = flow.server_end if end == End.SERVER else flow.client_end
    place = _place(facts.owner if facts else None)
    if end == End.SERVER:
        return f"ackward fix quickack --port {flow.server.port}{place}"
    return f"ackward fix quickack --to {flow.server.address}/{flow.server.address.max_prefixlen}{place}"


def _place(owner: Owner | None) -> str:
    if owner is None or owner.netns_name in (None, "self"):
        return ""
    return f" --netns {owner.netns_name.removeprefix('pid:')}" if owner.netns_name else ""


def quantile(values: Sequence[int] | Ints, share: float) -> int:
    """The smallest value that at least ``share`` of the values do not exceed."""
    return int(np.quantile(np.asarray(values), share, method="inverted_cdf"))
