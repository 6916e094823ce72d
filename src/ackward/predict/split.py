"""When a transfer's bytes arrive: over one connection, or split over gateways. A model, without a kernel.

The client connects, sends a request of one segment with the ACK that ends its handshake, and reads an answer that
the server writes at once. Each way of a leg takes half its round trip. Gateways forward bytes as they arrive,
``relay_ns`` later, and store what the next leg cannot take yet. How data fills a leg is said in ``split_stream``.

Laws, each held by a test:

- Causality: no message leaves a node before that node has what it answers or forwards, and it arrives half a round
  trip later or more.
- Monotone: a longer leg (without loss), a larger answer, a narrower window, a slower wire, more loss or a slower relay
  never make anything sooner.
- Each step (``split``, ``early``, ``pool``, ``window``) adds to the one before and never makes it slower.
- Nothing is faster than the limit: one round trip of the shorter path, and the wire's time for the answer.
- A chain of one leg is the direct connection.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from ackward.errors import UsageError
from ackward.model.split import Hop, HopKind, Ladder, SplitInput, SplitLeg, SplitPrediction, Timeline, Variant
from ackward.model.tcp_constants import INIT_CWND
from ackward.predict import split_stream
from ackward.predict.split_advice import advise
from ackward.predict.split_stream import Connection, Stream

#: IPv4 and TCP with timestamps (RFC 791, RFC 9293, RFC 7323): what a segment is longer than its payload.
HEADERS = 52
#: Payload of a full segment on Ethernet: 1500 bytes less the headers.
MSS = 1500 - HEADERS
#: Half of tcp_rmem's default maximum of 6 MiB: the other half is for overhead (tcp_adv_win_scale = 1, ip-sysctl).
RECEIVE_WINDOW = 3 << 20
#: One way through an epoll and splice() relay on one idle core: half of the 26 us that it added to a round trip of 64
#: bytes over loopback (measured).
RELAY_NS = 13_000

#: Legs of a chain at most; a minute would be a typing error, and so would a window above RFC 7323's largest.
MOST_LEGS = 8
LONGEST_LEG_NS = 60_000_000_000
LARGEST_WINDOW = 1 << 30
MOST_INITIAL_WINDOW = 1 << 15
#: Above it retransmission timeouts decide (Padhye, Firoiu, Towsley and Kurose 1998), which this model leaves out.
MOST_LOSS = 0.05
LARGEST_SIZE = 10**15
#: The talk's ladder shows an answer of three initial windows.
_LADDER_WINDOWS = 3


@dataclass(frozen=True)
class Leg:
    """A stretch of the path between two nodes: its round trip, and the share of segments lost on it."""

    rtt_ns: int
    loss: float = 0.0


@dataclass(frozen=True)
class Transfer:
    """What is asked: an answer of ``size`` bytes over ``legs``, the client's first.

    ``direct_ns`` is the round trip without gateways; None: as long as the legs together. The direct path loses what
    the legs lose together. ``bandwidth`` in bit/s holds for each leg; None: no limit. Raises :class:`UsageError` for
    what fits no connection.
    """

    legs: tuple[Leg, ...]
    size: int
    direct_ns: int | None = None
    bandwidth: int | None = None
    initial_window: int = INIT_CWND
    receive_window: int = RECEIVE_WINDOW
    mss: int = MSS
    relay_ns: int = RELAY_NS

    def __post_init__(self) -> None:
        """Name the first thing that does not fit."""
        for complaint in self._complaints():
            raise UsageError(complaint[0], consequence="nothing was predicted", next_step=complaint[1])

    @property
    def end_to_end(self) -> Leg:
        """The direct path."""
        loss = 1 - math.prod(1 - leg.loss for leg in self.legs)
        return Leg(self.path_ns if self.direct_ns is None else self.direct_ns, max(0.0, loss))

    @property
    def path_ns(self) -> int:
        """The round trip over all legs, without what gateways add."""
        return sum(leg.rtt_ns for leg in self.legs)

    @property
    def segments(self) -> int:
        """The answer in segments."""
        return -(-self.size // self.mss)

    @property
    def interval_ns(self) -> float:
        """What one segment takes on the wire."""
        return (self.mss + HEADERS) * 8e9 / self.bandwidth if self.bandwidth else 0.0

    def _complaints(self) -> Iterator[tuple[str, str]]:
        if not 1 <= len(self.legs) <= MOST_LEGS:
            yield (
                f"{len(self.legs)} legs are no chain that can be predicted",
                f"name the round trips from client to server, at most {MOST_LEGS}: 28ms,214ms,32ms",
            )
        named = [(f"leg {number}", leg) for number, leg in enumerate(self.legs, 1)]
        for name, leg in [*named, ("the direct path", self.end_to_end)]:
            if not 0 < leg.rtt_ns <= LONGEST_LEG_NS:
                yield f"{name} has a round trip of {leg.rtt_ns} ns", "name one above 0 and up to a minute"
            if not 0 <= round(leg.loss, 9) <= MOST_LOSS:
                yield (
                    f"{name} loses {leg.loss:.3%} of its segments",
                    f"name shares that make at most {MOST_LOSS:.0%}: above it timeouts decide, not this model",
                )
        for name, value, most in (
            ("a size of {} bytes", self.size, LARGEST_SIZE),
            ("an initial window of {} segments", self.initial_window, MOST_INITIAL_WINDOW),
            ("a receive window of {} bytes", self.receive_window, LARGEST_WINDOW),
        ):
            if not 1 <= value <= most:
                yield f"{name.format(value)} fits no TCP connection", f"name one from 1 to {most}"
        if self.bandwidth is not None and self.bandwidth < 1:
            yield f"a bandwidth of {self.bandwidth} bit/s carries nothing", "name one above 0"


@dataclass(frozen=True)
class _Steps:
    """Which of the talk's steps are on; ``faithful``: the client's SYN is held until the server answered."""

    early: bool = False
    pool: bool = False
    window: bool = False
    faithful: bool = False


_STEPS: Final = {
    Variant.SPLIT: _Steps(),
    Variant.EARLY: _Steps(early=True),
    Variant.POOL: _Steps(early=True, pool=True),
    Variant.WINDOW: _Steps(early=True, pool=True, window=True),
    Variant.OPTIMISTIC: _Steps(early=True, pool=True, window=True),
    Variant.FAITHFUL: _Steps(early=True, pool=True, window=True, faithful=True),
}


@dataclass(frozen=True)
class _Moments:
    """What happens when, and the messages if they were asked for."""

    client_connected: float | None
    server_connected: float | None
    answer: Stream
    hops: tuple[Hop, ...] = ()


def predict(transfer: Transfer) -> SplitPrediction:
    """All variants of ``transfer`` beside each other, and whether gateways would pay."""
    given = _input(transfer)
    direct = _direct(transfer)
    variants = [
        _timeline(variant, moments, direct.answer)
        for variant, moments in (
            (Variant.DIRECT, direct),
            *((variant, _split(transfer, steps)) for variant, steps in _STEPS.items()),
            (Variant.LIMIT, _limit(transfer)),
        )
    ]
    small = _for_ladder(transfer)
    ladders = [
        _ladder(variant, _split(small, steps, hops=True) if steps else _direct(small, hops=True))
        for variant, steps in {Variant.DIRECT: None, **_STEPS}.items()
        if variant is not Variant.OPTIMISTIC  # its messages are those of window
    ]
    return SplitPrediction(
        input=given,
        variants=variants,
        advice=advise(given, {timeline.variant: timeline for timeline in variants}),
        ladder_bytes=small.size,
        ladders=ladders,
    )


def _direct(transfer: Transfer, *, hops: bool = False) -> _Moments:
    """One connection over the direct path: a chain of one leg. Its messages pass all nodes."""
    whole = _split(replace(transfer, legs=(transfer.end_to_end,), direct_ns=None), _Steps(), hops=hops)
    server = len(transfer.legs)
    ends = {0: 0, 1: server}
    return replace(
        whole,
        hops=tuple(
            hop.model_copy(update={"sender": ends[hop.sender], "receiver": ends[hop.receiver]})
            for hop in whole.hops
        ),
    )


def _split(transfer: Transfer, steps: _Steps, *, hops: bool = False) -> _Moments:
    """The chain of connections: handshakes, the request's way up, the answer's way down."""
    legs = transfer.legs
    begun, ready, answered = _handshakes(transfer, steps)
    sent: list[float] = []
    at = 0.0
    for leg, usable in zip(legs, ready, strict=True):
        sent.append(max(at, usable))
        at = sent[-1] + leg.rtt_ns / 2 + transfer.relay_ns
    written = at - transfer.relay_ns  # the server is no gateway

    connections = [_connection(transfer, steps, number) for number in range(len(legs))]
    answer = Stream.written(written, transfer.segments, _worked_out(transfer))
    flights: list[Hop] = []
    for number in reversed(range(len(legs))):
        passage = split_stream.carry(answer, connections[number])
        if hops:
            flights += _flights(number, passage, connections[number])
        answer = passage.arrived.later(transfer.relay_ns if number else 0)
    messages = [*_messages(transfer, steps, begun, ready, answered), *_requests(legs, sent)] if hops else []
    return _Moments(
        client_connected=ready[0],
        server_connected=ready[-1] + legs[-1].rtt_ns / 2,
        answer=answer,
        hops=tuple(sorted([*messages, *flights], key=lambda hop: (hop.at_ns, hop.arrives_ns))),
    )


def _handshakes(transfer: Transfer, steps: _Steps) -> tuple[list[float], list[float], list[float]]:
    """For each leg when its connection is begun and when its near end may send, and when the server's answer passes.

    The last list is of gateways, the exit's first, and empty unless ``faithful``.
    """
    begun, ready = [0.0], [float(transfer.legs[0].rtt_ns)]
    for number, leg in enumerate(transfer.legs[1:], 1):
        near = transfer.legs[number - 1].rtt_ns / 2
        # The SYN came, or accept() returned: the ACK that ends the near leg's handshake came.
        begun.append((begun[-1] if steps.early else ready[-1]) + near + transfer.relay_ns)
        ready.append(begun[-1] + (0 if steps.pool and _pooled(transfer, number) else leg.rtt_ns))
    answered: list[float] = []
    if steps.faithful and len(ready) > 1:
        answered = [ready[-1]]
        for leg in reversed(transfer.legs[1:-1]):
            answered.append(answered[-1] + transfer.relay_ns + leg.rtt_ns / 2)
        ready[0] = answered[-1] + transfer.relay_ns + transfer.legs[0].rtt_ns / 2
    return begun, ready, answered


def _pooled(transfer: Transfer, number: int) -> bool:
    """Whether a gateway is at both ends of the leg."""
    return 0 < number < len(transfer.legs) - 1


def _connection(transfer: Transfer, steps: _Steps, number: int) -> Connection:
    """The connection of a leg, as the node nearer to the server uses it for the answer."""
    wide = steps.window and _pooled(transfer, number)
    leg = transfer.legs[number]
    return Connection(
        rtt_ns=leg.rtt_ns,
        interval_ns=transfer.interval_ns,
        initial_window=None if wide else transfer.initial_window,
        receive_window=None if wide else max(1, transfer.receive_window // transfer.mss),
        loss=leg.loss,
    )


def _worked_out(transfer: Transfer) -> int:
    """How many segments to work out: as many for each variant, so that they differ by nothing else."""
    return split_stream.worth_working_out(
        [
            _connection(transfer, _STEPS[variant], number)
            for variant in (Variant.SPLIT, Variant.WINDOW)
            for number in range(len(transfer.legs))
        ]
    )


def _limit(transfer: Transfer) -> _Moments:
    """A request that needs no handshake and an answer that needs no window, over the shorter path."""
    round_trip = min(transfer.end_to_end.rtt_ns, transfer.path_ns)
    wire = Connection(round_trip, transfer.interval_ns, initial_window=None, receive_window=None)
    passage = split_stream.carry(Stream.written(round_trip / 2, transfer.segments, 1), wire)
    return _Moments(None, None, passage.arrived)


def _timeline(variant: Variant, moments: _Moments, direct: Stream) -> Timeline:
    first, last = float(moments.answer.head[0]), moments.answer.last
    return Timeline(
        variant=variant,
        client_connected_ns=None if moments.client_connected is None else round(moments.client_connected),
        server_connected_ns=None if moments.server_connected is None else round(moments.server_connected),
        first_byte_ns=round(first),
        download_ns=round(last),
        first_byte_ratio=float(direct.head[0]) / first,
        download_ratio=direct.last / last,
    )


def _ladder(variant: Variant, moments: _Moments) -> Ladder:
    return Ladder(
        variant=variant,
        first_byte_ns=round(moments.answer.head[0]),
        download_ns=round(moments.answer.last),
        hops=list(moments.hops),
    )


def _input(transfer: Transfer) -> SplitInput:
    def told(leg: Leg) -> SplitLeg:
        return SplitLeg(rtt_ns=leg.rtt_ns, loss=leg.loss)

    return SplitInput(
        legs=[told(leg) for leg in transfer.legs],
        direct=told(transfer.end_to_end),
        size_bytes=transfer.size,
        bandwidth_bits=transfer.bandwidth,
        initial_window=transfer.initial_window,
        receive_window_bytes=transfer.receive_window,
        mss=transfer.mss,
        relay_ns=transfer.relay_ns,
    )


def _for_ladder(transfer: Transfer) -> Transfer:
    """A smaller answer, without loss: few enough flights to see each."""
    size = min(transfer.size, _LADDER_WINDOWS * transfer.initial_window * transfer.mss)
    return replace(
        transfer,
        size=size,
        legs=tuple(replace(leg, loss=0.0) for leg in transfer.legs),
        direct_ns=transfer.end_to_end.rtt_ns,
    )


def _hop(kind: HopKind, sender: int, receiver: int, at: float, leg: Leg) -> Hop:
    arrives = round(at + leg.rtt_ns / 2)
    return Hop(kind=kind, sender=sender, receiver=receiver, at_ns=round(at), arrives_ns=arrives)


def _messages(
    transfer: Transfer, steps: _Steps, begun: list[float], ready: list[float], answered: list[float]
) -> Iterator[Hop]:
    """The handshakes, and what travels in their place."""
    for number, leg in enumerate(transfer.legs):
        if steps.pool and _pooled(transfer, number):
            yield _hop("announce", number, number + 1, begun[number], leg)
            continue
        yield _hop("syn", number, number + 1, begun[number], leg)
        yield _hop("syn-ack", number + 1, number, ready[number] - leg.rtt_ns / 2, leg)
        yield _hop("ack", number, number + 1, ready[number], leg)
    # The exit's answer crosses the legs between gateways on its way to the entry.
    for hops, at in enumerate(answered[:-1]):
        number = len(transfer.legs) - 2 - hops
        yield _hop("answer", number + 1, number, at + transfer.relay_ns, transfer.legs[number])


def _requests(legs: tuple[Leg, ...], sent: list[float]) -> Iterator[Hop]:
    for number, (leg, at) in enumerate(zip(legs, sent, strict=True)):
        yield _hop("request", number, number + 1, at, leg)


def _flights(number: int, passage: split_stream.Passage, connection: Connection) -> Iterator[Hop]:
    """Segments that leave one right after the other, and the ACK of each such flight."""
    departures, arrivals = passage.departures, passage.arrived.head
    # Right after: within the wire's pace, or too close to be seen beside the leg's own round trip.
    apart = max(1.5 * connection.pace_ns, connection.rtt_ns / 10)
    starts = np.flatnonzero(np.diff(departures, prepend=-math.inf) > apart)
    bounds: list[int] = [*map(int, starts), len(departures)]
    for first, end in pairwise(bounds):
        yield Hop(
            kind="data", sender=number + 1, receiver=number, segments=end - first,
            at_ns=round(departures[first]), arrives_ns=round(arrivals[end - 1]),
        )  # fmt: skip
        if connection.initial_window is not None:
            yield _hop("ack", number, number + 1, float(arrivals[end - 1]), Leg(connection.rtt_ns))
