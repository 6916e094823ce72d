"""Two ends, the wire between them, and their programs: events in the order of time.

The only place where time advances. Everything that happens is written down in a :class:`Log` for each round; what it
means is told by ``waits.py``.
"""

from __future__ import annotations

import enum
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from ackward.model.causes import End
from ackward.model.prediction import AckSettings
from ackward.model.report import LadderStep
from ackward.model.tcp_constants import DELACK_MIN_NS, MAX_QUICKACKS, RTO_MIN_NS
from ackward.predict.receiver import AckPolicy, Receiver
from ackward.predict.sender import Data, Obstacle, Sender, SendPolicy, Timer


@dataclass(frozen=True)
class Segment:
    """What crosses the wire. ``waited_ns``: how long the data that it acknowledges had waited for this ACK.

    ``echo`` is the moment at which the segment left whose timestamp it returns.
    """

    sender: End
    at: int
    arrives: int
    data: Data | None
    ack: int
    waited_ns: int
    echo: int


class Until(enum.Enum):
    """What sent an ACK that waited, in words."""

    TIMER = "its delayed-ACK timer fired"
    SEGMENTS = "enough segments had come"
    AGAIN = "a segment came that it had already"
    DATA = "data took it along"
    READ = "its program had read all"


@dataclass(frozen=True)
class Hold:
    """Data that was written stood still at ``end``.

    ``delayed``: what let it go was an ACK that had waited, or a probe (``probed``).
    """

    end: End
    obstacle: Obstacle
    start: int
    stop: int
    delayed: bool
    slow_start: bool
    probed: bool


@dataclass(frozen=True)
class Delay:
    """An ACK waited at ``end`` from ``start`` to ``stop``; ``until`` says what sent it."""

    end: End
    start: int
    stop: int
    until: Until


@dataclass
class Log:
    """One round as it happened; times since the connection began. ``base``: where each end's stream then was."""

    start: int
    base: dict[End, int]
    stop: int = 0
    steps: list[LadderStep] = field(default_factory=list)
    flights: list[Segment] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    delays: list[Delay] = field(default_factory=list)
    thinking: list[tuple[int, int]] = field(default_factory=list)
    acks: int = 0
    acks_by_timer: int = 0
    probes: int = 0
    spurious_probes: int = 0
    timeouts: int = 0


class _Endpoint:
    """One end: its two halves, and since when which obstacle keeps written data back."""

    def __init__(self, name: End, send: SendPolicy, acks: AckPolicy, rtt_ns: int) -> None:
        self.name = name
        self.sender = Sender(send, rtt_ns)
        self.receiver = Receiver(acks)
        self.held: tuple[Obstacle, int, bool] | None = None


class Exchange:
    """Runs the rounds of one connection; ``logs`` has one entry a round."""

    def __init__(self, settings: AckSettings) -> None:
        self.settings = settings
        self.logs: list[Log] = []
        client = _Endpoint(End.CLIENT, *_client(settings), settings.rtt_ns)
        server = _Endpoint(End.SERVER, *_server(settings), settings.rtt_ns)
        self._client, self._server = client, server
        self._now = 0
        self._answered = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def _log(self) -> Log:
        return self.logs[-1]

    @property
    def _finished(self) -> bool:
        return len(self.logs) == self.settings.rounds and self._log.stop > 0

    def run(self) -> list[Log]:
        """All rounds. What arrives goes before a timer that fires at the same moment."""
        self._ask()
        while not self._finished:
            timers = [(due, end) for end in (self._client, self._server) if (due := _due(end)) is not None]
            timer = min(timers, key=lambda each: each[0], default=None)
            if self._queue and (timer is None or self._queue[0][0] <= timer[0]):
                self._now, _, happens = heapq.heappop(self._queue)
                happens()
            else:
                assert timer is not None, "something always happens until the last round ends"
                self._now = timer[0]
                self._timer_fires(timer[1])
        return self.logs

    def _later(self, at: int, happens: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (at, next(self._order), happens))

    # The programs.

    def _ask(self) -> None:
        base = {end.name: end.sender.written for end in (self._client, self._server)}
        self.logs.append(Log(self._now, base))
        self._write(self._client, self.settings.writes)

    def _write(self, end: _Endpoint, sizes: tuple[int, ...]) -> None:
        for size in sizes:
            end.sender.write(size, self._now)
            self._push(end, delayed=False)
            if end.held:
                self._log.steps.append(self._held_step(end, size))

    def _held_step(self, end: _Endpoint, size: int) -> LadderStep:
        why = "Nagle on" if end.held and end.held[0] is Obstacle.NAGLE else "window full"
        note = f"{size} B written, held ({why}, {end.sender.outstanding} in flight)"
        seq = max(end.sender.written - size, end.sender.snd_nxt) - self._log.base[end.name]
        return LadderStep(at_ns=self._now, sender=end.name, kind="write-held", note=note, seq=seq, bytes=size)

    def _program_reads(self, end: _Endpoint) -> None:
        if end.receiver.acks_after_read():
            self._transmit(end, None, Until.READ)
        settings = self.settings
        if end is self._client:
            if end.receiver.rcv_nxt >= sum(settings.answer) * len(self.logs):
                self._round_ends()
        elif settings.answer and end.receiver.rcv_nxt >= sum(settings.writes) * (self._answered + 1):
            self._answered += 1
            if settings.think_ns:
                self._log.thinking.append((self._now, self._now + settings.think_ns))
                self._later(self._now + settings.think_ns, lambda: self._write(end, settings.answer))
            else:
                self._write(end, settings.answer)

    def _round_ends(self) -> None:
        self._log.stop = self._now
        if not self._finished:
            self._later(self._now + self.settings.rest_ns, self._ask)

    # The kernels.

    def _push(self, end: _Endpoint, *, delayed: bool) -> None:
        """Send what may leave; ``delayed``: what gave the occasion had been waited for."""
        before = end.sender.snd_nxt
        slow_start = end.sender.slow_start
        while data := end.sender.take(self._now):
            self._transmit(end, data, first=data.seq == before)
        self._note_hold(end, moved=end.sender.snd_nxt > before, delayed=delayed, slow_start=slow_start)

    def _note_hold(
        self, end: _Endpoint, *, moved: bool, delayed: bool, slow_start: bool, probed: bool = False
    ) -> None:
        obstacle = end.sender.obstacle()
        if end.held and (moved or end.held[0] is not obstacle):
            what, since, slow = end.held
            self._log.holds.append(Hold(end.name, what, since, self._now, delayed, slow, probed))
            end.held = None
        if obstacle and not end.held:
            end.held = (obstacle, self._now, slow_start)

    def _transmit(
        self,
        end: _Endpoint,
        data: Data | None,
        until: Until = Until.DATA,
        *,
        first: bool = True,
        note: str = "",
    ) -> None:
        """Send a segment; ``first`` of what goes at one moment."""
        waited = end.receiver.ack_sent(self._now, interactive=data is not None and first)
        if waited:
            self._log.delays.append(Delay(end.name, self._now - waited, self._now, until))
        there = self._server if end is self._client else self._client
        out = self.settings.rtt_ns // 2
        flight = out if end is self._client else self.settings.rtt_ns - out
        receiver = end.receiver
        segment = Segment(
            end.name, self._now, self._now + flight, data, receiver.rcv_nxt, waited, receiver.echo
        )
        self._log.flights.append(segment)
        self._log.steps.append(self._sent_step(segment, there.name, note))
        if data is None and end is self._server:
            self._log.acks += 1
        self._later(segment.arrives, lambda: self._arrives(there, segment))

    def _sent_step(self, segment: Segment, there: End, note: str) -> LadderStep:
        base, data = self._log.base, segment.data
        return LadderStep(
            at_ns=segment.at,
            arrives_ns=segment.arrives,
            sender=segment.sender,
            seq=max(data.seq - base[segment.sender], 0) if data else 0,
            ack=max(segment.ack - base[there], 0),
            bytes=data.end - data.seq if data else 0,
            flags="PSH" if data and data.push else "ACK",
            note=note,
        )

    def _arrives(self, end: _Endpoint, segment: Segment) -> None:
        """As ``tcp_rcv_established``: the ACK, the data, what may be sent now, the ACK of it, the program."""
        sender, receiver, data = end.sender, end.receiver, segment.data
        advanced = sender.acknowledged(self._now, segment.ack, segment.echo)
        fresh = data is not None and receiver.arrived(
            self._now, data.seq, data.end, left=segment.at, push=data.push, rto_ns=sender.rto_ns
        )
        self._push(end, delayed=segment.waited_ns > 0)
        if data and receiver.acks_now(self._now):
            self._transmit(end, None, Until.SEGMENTS if fresh else Until.AGAIN)
        if fresh:
            self._program_reads(end)
        one_way = end is self._client and not self.settings.answer
        if one_way and advanced and sender.snd_una == sender.written:
            self._round_ends()

    def _timer_fires(self, end: _Endpoint) -> None:
        log = self._log
        if end.receiver.due == self._now:
            end.receiver.timer_fired()
            note = "delayed-ACK timer fired, an ACK was pending"
            log.steps.append(LadderStep(at_ns=self._now, sender=end.name, kind="ack-timer", note=note))
            log.acks_by_timer += end is self._server
            self._transmit(end, None, Until.TIMER)
            return
        fired = end.sender.timer_fired(self._now)
        if fired is None:
            return
        timer, data = fired
        log.probes += timer is Timer.PROBE
        log.spurious_probes += timer is Timer.PROBE and data.again
        log.timeouts += timer is Timer.TIMEOUT
        self._transmit(end, data, note=f"{timer.value}: {'spurious' if data.again else 'sends held data'}")
        self._note_hold(
            end, moved=not data.again, delayed=True, slow_start=end.sender.slow_start, probed=True
        )


def _due(end: _Endpoint) -> int | None:
    return min((due for due in (end.receiver.due, end.sender.due) if due is not None), default=None)


def rto_min_ns(settings: AckSettings) -> int:
    """The client's rto_min as its kernel keeps it: in jiffies, rounded up (``tcp_rto_min``)."""
    return (
        -(-settings.rto_min_ns // settings.tick_ns) * settings.tick_ns
        if settings.tick_ns
        else settings.rto_min_ns
    )


def _client(settings: AckSettings) -> tuple[SendPolicy, AckPolicy]:
    """The client sends by the settings and acknowledges by Linux's rules; tcp_delack_max() stays below rto_min."""
    rto_min = rto_min_ns(settings)
    delack = min(DELACK_MIN_NS, max(rto_min - settings.tick_ns, settings.tick_ns))
    send = SendPolicy(
        nagle=settings.nagle,
        tlp=settings.tlp,
        rto_min_ns=rto_min,
        cwnd=settings.cwnd,
        mss=settings.mss,
        tick_ns=settings.tick_ns,
    )
    acks = AckPolicy(
        delack_ns=delack,
        threshold=0,
        quickack=False,
        quick=MAX_QUICKACKS,
        pingpong_threshold=settings.pingpong_threshold,
        tick_ns=settings.tick_ns,
    )
    return send, acks


def _server(settings: AckSettings) -> tuple[SendPolicy, AckPolicy]:
    """The server acknowledges by the settings and sends by Linux's defaults."""
    send = SendPolicy(
        nagle=settings.server_nagle,
        tlp=settings.tlp,
        rto_min_ns=RTO_MIN_NS,
        cwnd=settings.cwnd,
        mss=settings.mss,
        tick_ns=settings.tick_ns,
    )
    acks = AckPolicy(
        delack_ns=settings.delack_ns,
        threshold=settings.threshold,
        quickack=settings.quickack,
        quick=settings.quick,
        pingpong_threshold=settings.pingpong_threshold,
        tick_ns=settings.tick_ns,
    )
    return send, acks
