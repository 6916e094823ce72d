"""What a finding says in words: why the time was lost, and what gets it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ackward.diagnosis import probe_words
from ackward.diagnosis.flows import Flow
from ackward.diagnosis.segmented import Ints
from ackward.model.causes import Cause, End
from ackward.model.report import Remedy
from ackward.model.scopes import USUAL_SEGMENTS
from ackward.model.segments import Owner
from ackward.model.units import duration


@dataclass(frozen=True)
class Loss:
    """What one finding lost: one entry an exchange, in nanoseconds. ``example`` is the entry of a typical one.

    ``without`` is what each remedy saves, by its name (:mod:`ackward.diagnosis.counterfactual`).
    """

    elapsed: Ints
    stalled: Ints
    without: Mapping[str, Ints]
    example: int
    holding: End | None
    delaying: End | None

    @property
    def typical_ns(self) -> int:
        """The median stall."""
        return int(np.median(self.stalled))


def why(cause: Cause, loss: Loss) -> str:
    """One paragraph. Names the two ends, who holds and who delays, and the rule of TCP behind it."""
    holder, delayer = loss.holding or "sender", loss.delaying or "receiver"
    time = duration(loss.typical_ns)
    if cause in (Cause.ACK_HOLDING, Cause.TAIL_LOSS_PROBE):
        return probe_words.why(cause, holder, delayer, time)
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
        Cause.RETRANSMISSION_TIMEOUT: (
            f"Something that the {holder} sent was lost, and nothing came back that could have told it: it waited "
            f"for its retransmission timer and sent again after {time} (median)."
        ),
        Cause.FAST_RETRANSMIT: (
            f"A segment from the {holder} was lost on the way. The acknowledgements for the data behind "
            f"it told, and it "
            f"was sent again: {time} (median) until the repair."
        ),
        Cause.SLOW_START: (
            f"The {holder} began with a small congestion window and had to wait for acknowledgements, a "
            f"round trip at a "
            f"time, while it grew: {time} (median) an exchange with nothing to do but wait."
        ),
        Cause.IDLE_RESTART: (
            f"After a pause the {holder}'s kernel had set its congestion window back to the initial one "
            f"(tcp_slow_start_after_idle), and had to grow it again: {time} (median) an exchange."
        ),
        Cause.PACING: (
            f"The {holder}'s kernel spread its segments over time on purpose (pacing): {time} (median) an exchange."
        ),
        Cause.ACCEPT_QUEUE: (
            f"The server's queue of connections that wait to be accepted was full, so its kernel dropped handshake "
            f"segments and the client had to try again: {time} (median) a connection."
        ),
        Cause.HOST_QUEUE: (
            f"The {holder}'s own host kept the data queued below TCP (autocorking, small-queue limit, qdisc): "
            f"{time} (median)."
        ),
    }
    return texts[cause]


#: A replay takes what it does not see for nothing (counterfactual.py).
WRITES_UNSEEN = (
    "When the {holder}'s program wrote cannot be seen from here: if it took its time between two writes, "
    "so much less is to be saved."
)

#: What we cannot turn. The end is the sender's.
_ADVICE = {
    Cause.CONGESTION_WINDOW: (
        "look for loss on the path, and for a congestion control that suits it (net.ipv4.tcp_congestion_control)"
    ),
    Cause.SLOW_START: "keep connections open, or put gateways near both ends",
    Cause.RETRANSMISSION_TIMEOUT: (
        "find where the path loses packets (interface and qdisc drops, policers); see that SACK and "
        "tcp_early_retrans are on, so that most losses need no timer"
    ),
    Cause.TAIL_LOSS_PROBE: probe_words.LOSS_ADVICE,
    Cause.FAST_RETRANSMIT: "find where the path loses packets: interface and qdisc drops, policers, a full buffer",
    Cause.PACING: "see who paces: SO_MAX_PACING_RATE in the program, fq, or BBR's estimate of the path",
    Cause.ACCEPT_QUEUE: "accept faster, or raise the listen backlog and net.core.somaxconn",
}


def remedies(cause: Cause, loss: Loss, flow: Flow) -> list[tuple[Remedy, Ints]]:
    """What would help at which end, best first, each with what it saves per exchange.

    What ackward can turn is replayed (``loss.without``); an advice saves the stall at most, and is given all of it.
    """
    found: list[tuple[Remedy, Ints]] = []

    def add(
        name: str, end: End, saves: Ints, *, command: str | None = None, advice: str | None = None
    ) -> None:
        typical = int(loss.elapsed[loss.example] - saves[loss.example])
        if command and (there := elsewhere(flow, end)):
            advice = f"{there}; {advice}" if advice else there
        remedy = Remedy(
            name=name, end=end, saves_ns=int(saves.sum()), typical_ns=typical, command=command, advice=advice
        )
        found.append((remedy, saves))

    if cause in (Cause.STANDOFF, Cause.DELAYED_ACK) and loss.delaying:
        command = quickack_command(flow, loss.delaying)
        add("quickack", loss.delaying, loss.without["quickack"], command=command)
    if cause in (Cause.SLOW_START, Cause.IDLE_RESTART) and loss.holding:
        command = initcwnd_command(flow, loss.holding, after_idle=cause == Cause.IDLE_RESTART)
        add("initcwnd", loss.holding, loss.without["initcwnd"], command=command)
    if cause in (Cause.STANDOFF, Cause.NAGLE) and loss.holding:
        text = (
            "or, in the program: set TCP_NODELAY, or hand a whole message to one write (writev, a buffered stream); "
            "then nothing is held, whatever the other end does"
        )
        command = nodelay_command(flow, loss.holding)
        add("nodelay", loss.holding, loss.without["nodelay"], command=command, advice=text)
    if cause == Cause.RECEIVE_WINDOW and loss.holding:
        reader = End.SERVER if loss.holding == End.CLIENT else End.CLIENT
        add(
            "advice",
            reader,
            loss.stalled,
            advice="read faster, or raise net.ipv4.tcp_rmem (and drop a fixed SO_RCVBUF) there",
        )
    held_ack = cause in (Cause.ACK_HOLDING, Cause.TAIL_LOSS_PROBE) and loss.delaying
    if held_ack and loss.delaying:
        add("advice", loss.delaying, loss.stalled, advice=probe_words.RECEIVER_ADVICE)
    adviser = loss.holding or (End.SERVER if cause == Cause.ACCEPT_QUEUE else None)
    if cause in _ADVICE and adviser and not held_ack:
        add("advice", adviser, loss.stalled, advice=_ADVICE[cause])
    if cause in (Cause.ACK_HOLDING, Cause.TAIL_LOSS_PROBE) and loss.holding:
        # It spares segments and window, not the wait: that is the receiver's.
        add("advice", loss.holding, np.zeros_like(loss.stalled), advice=probe_words.SENDER_ADVICE)
    if cause == Cause.HOST_QUEUE and loss.holding:
        add(
            "advice",
            loss.holding,
            loss.stalled,
            advice="try net.ipv4.tcp_autocorking=0; look at the qdisc with `tc -s qdisc`",
        )
    # Within 5 %, what can be done now comes before what needs a changed program, and routes before sockets.
    best = max((remedy.saves_ns for remedy, _ in found), default=0)

    def rank(entry: tuple[Remedy, Ints]) -> tuple[bool, bool, int]:
        remedy, _ = entry
        near = remedy.saves_ns >= 0.95 * best
        return (not near, remedy.command is None, 0 if near else -remedy.saves_ns)

    return sorted(found, key=rank)


def quickack_command(flow: Flow, end: End) -> str:
    """The command line that makes ``end`` acknowledge at once, for just this service."""
    facts = flow.server_end if end == End.SERVER else flow.client_end
    where = place(facts.owner if facts else None)
    if end == End.SERVER:
        return f"ackward fix quickack --port {flow.server.port}{where}"
    return f"ackward fix quickack --to {flow.server.address}/{flow.server.address.max_prefixlen}{where}"


def initcwnd_command(flow: Flow, end: End, *, after_idle: bool) -> str:
    """The command line that lets ``end`` send more at once to just this peer."""
    facts, peer = (flow.server_end, flow.client) if end == End.SERVER else (flow.client_end, flow.server)
    to = f"--to {peer.address}/{peer.address.max_prefixlen} --segments {USUAL_SEGMENTS}"
    idle = " --after-idle" if after_idle else ""
    return f"ackward fix initcwnd {to}{idle}{place(facts.owner if facts else None)}"


def nodelay_command(flow: Flow, end: End) -> str:
    """The command line that turns Nagle's algorithm off at ``end``, for just this service."""
    facts = flow.server_end if end == End.SERVER else flow.client_end
    return f"ackward fix nodelay --port {flow.server.port}{place(facts.owner if facts else None)}"


def elsewhere(flow: Flow, end: End) -> str | None:
    """Where a remedy for ``end`` belongs, if only the other end was watched."""
    here, peer = (
        (flow.server_end, flow.client_end) if end == End.SERVER else (flow.client_end, flow.server_end)
    )
    if here or not peer:
        return None
    address = (flow.server if end == End.SERVER else flow.client).address
    return f"there, on the host or in the namespace of {address}: that end was not watched"


def place(owner: Owner | None) -> str:
    """The option that names the namespace of a socket; empty if it is the current one, or not known (a capture)."""
    if owner is None or owner.netns_name in (None, "self"):
        return ""
    return f" --netns {owner.netns_name.removeprefix('pid:')}" if owner.netns_name else ""


def quantile(values: Sequence[int] | Ints, share: float) -> int:
    """The smallest value that at least ``share`` of the values do not exceed."""
    return int(np.quantile(np.asarray(values), share, method="inverted_cdf"))
