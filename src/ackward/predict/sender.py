"""The sending half of one end: what may leave, and what its timer does when no ACK comes.

- Nagle in Minshall's form: the last, partial segment waits while a small segment is unacknowledged
  (``tcp_minshall_check``, ``tcp_nagle_check``).
- No more segments outstanding than the congestion window, which grows by slow start (RFC 5681 3.1).
- Tail-loss probe (RFC 8985 section 7, ``tcp_schedule_loss_probe``): after 2 SRTT + 2 ms with several segments
  outstanding, 2 SRTT + rto_min with exactly one, and never later than the retransmission timeout. It sends new data
  if there is any, whatever Nagle and the window say, else the last segment once more; one per flight
  (``tcp_send_loss_probe``).
- Retransmission timeout (RFC 6298): the first segment once more, and the timer doubles. An ACK of data that was not
  sent again shows it was spurious and restores the window (F-RTO, RFC 5682).
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

from ackward.predict.round_trip import RoundTrip
from ackward.predict.timers import expiry

TIMEOUT_MIN_NS = 2_000_000  # TCP_TIMEOUT_MIN_US, include/net/tcp.h
_NO_THRESHOLD = 1 << 31
_STAMP = 1_000_000  # one unit of TCP's timestamps, TCP_TS_HZ


class Timer(enum.Enum):
    """What the one timer of a sender is armed for (``icsk_pending``)."""

    PROBE = "tail-loss probe"
    TIMEOUT = "retransmission timeout"


class Obstacle(enum.Enum):
    """Why data that was written does not leave."""

    NAGLE = "nagle"
    WINDOW = "window"


@dataclass(frozen=True)
class SendPolicy:
    """How one end sends; times in nanoseconds, ``cwnd`` and ``mss`` in segments and bytes."""

    nagle: bool
    tlp: bool
    rto_min_ns: int
    cwnd: int
    mss: int
    tick_ns: int


@dataclass(frozen=True)
class Data:
    """A stretch of the stream on its way. ``again``: all of it was sent before."""

    seq: int
    end: int
    push: bool
    again: bool = False


@dataclass
class _Outstanding:
    data: Data
    at: int
    again: bool = False


class Sender:
    """What was written, what is outstanding, and the timer."""

    def __init__(self, policy: SendPolicy, rtt_ns: int) -> None:
        self.policy = policy
        self.round_trip = RoundTrip(rtt_ns, policy.rto_min_ns)
        self.snd_una = self.snd_nxt = self.written = 0
        self.due: int | None = None
        self._timer = Timer.TIMEOUT
        self._outstanding: deque[_Outstanding] = deque()
        self._ends_of_writes: deque[int] = deque()
        self._small_end = 0
        self._cwnd, self._ssthresh = policy.cwnd, _NO_THRESHOLD
        self._acks_in_avoidance = 0
        self._before_timeout: tuple[int, int] | None = None
        self._backoff = 0
        self._probed = False
        self._last_sent = 0

    @property
    def rto_ns(self) -> int:
        """Retransmission timeout with its backoff."""
        return self.round_trip.rto_ns << self._backoff

    @property
    def outstanding(self) -> int:
        """Segments that are not acknowledged."""
        return len(self._outstanding)

    @property
    def slow_start(self) -> bool:
        """Whether the window still grows by one for each acknowledged segment."""
        return self._cwnd < self._ssthresh

    def write(self, size: int, now: int) -> None:
        """The program writes ``size`` bytes."""
        if not self._outstanding and self.snd_nxt == self.written:
            self._restart_after_idle(now)
        self.written += size
        self._ends_of_writes.append(self.written)

    def _restart_after_idle(self, now: int) -> None:
        """``tcp_cwnd_restart``: the window halves for each timeout of silence, down to the initial one."""
        silence = now - self._last_sent - self.rto_ns
        floor = min(self.policy.cwnd, self._cwnd)
        if silence > 0:
            self._ssthresh = max(self._ssthresh if self.slow_start else self._cwnd * 3 // 4, 2)
        while silence > 0 and self._cwnd > floor:
            self._cwnd //= 2
            silence -= self.rto_ns
        self._cwnd = max(self._cwnd, floor)

    def obstacle(self) -> Obstacle | None:
        """What keeps the next segment back; None also if there is none."""
        if self.snd_nxt == self.written:
            return None
        if self.outstanding >= self._cwnd:
            return Obstacle.WINDOW
        small = self.written - self.snd_nxt < self.policy.mss
        if small and self.policy.nagle and self._outstanding and self._small_end > self.snd_una:
            return Obstacle.NAGLE
        return None

    def take(self, now: int) -> Data | None:
        """The next segment if it may leave now; it counts as sent."""
        if self.snd_nxt == self.written or self.obstacle():
            return None
        data = self._cut(now)
        self._schedule(now, advancing=False)
        return data

    def _cut(self, now: int) -> Data:
        seq, end = self.snd_nxt, min(self.snd_nxt + self.policy.mss, self.written)
        push = False
        while self._ends_of_writes and self._ends_of_writes[0] <= end:
            push = self._ends_of_writes.popleft() == end or push
        data = Data(seq, end, push=push)
        if end - seq < self.policy.mss:
            self._small_end = end
        if not self._outstanding:
            self._arm(Timer.TIMEOUT, now, self.rto_ns)
        self._outstanding.append(_Outstanding(data, now))
        self.snd_nxt, self._last_sent = end, now
        return data

    def _arm(self, timer: Timer, now: int, delay: int) -> None:
        self._timer, self.due = timer, expiry(now, max(delay, 0), self.policy.tick_ns)

    def probe_timeout_ns(self) -> int:
        """PTO for what is outstanding now, before the cap by the retransmission timeout."""
        alone = self.outstanding == 1
        margin = self.policy.rto_min_ns if alone else TIMEOUT_MIN_NS
        return 2 * self.round_trip.srtt_ns + margin

    def _schedule(self, now: int, *, advancing: bool) -> None:
        """After data left (not ``advancing``) or an ACK did: the probe if one may be, else the timeout."""
        if not self._outstanding:
            self.due = None
        elif self.policy.tlp and self._before_timeout is None:
            left = self.rto_ns if advancing else self._outstanding[0].at + self.rto_ns - now
            delay = self.probe_timeout_ns()
            self._arm(Timer.PROBE, now, min(delay, left) if left > 0 else delay)
        elif advancing:
            self._arm(Timer.TIMEOUT, now, self.rto_ns)

    def acknowledged(self, now: int, ack: int, echo: int) -> bool:
        """An ACK came; ``echo`` is when the segment left whose timestamp it carries. Gives whether it is news."""
        if ack <= self.snd_una:
            return False
        flight = self.outstanding
        self.snd_una = ack
        left, again = self._outstanding[0].at, False
        while self._outstanding and self._outstanding[0].data.end <= ack:
            again |= self._outstanding.popleft().again
        # Karn's rule: what was sent again is measured by timestamps alone (tcp_ack_update_rtt), in milliseconds.
        took = max(now // _STAMP - echo // _STAMP, 1) * _STAMP if again else now - left
        self.round_trip.sample(took, ack, self.snd_nxt)
        self._backoff, self._probed = 0, False
        if self._before_timeout is not None:
            self._cwnd, self._ssthresh = self._before_timeout
            self._before_timeout = None
        else:
            self._grow(flight, flight - self.outstanding)
        self._schedule(now, advancing=True)
        return True

    def _grow(self, flight: int, acked: int) -> None:
        """RFC 5681 3.1, and only while the window is what limits (RFC 7661, ``tcp_is_cwnd_limited``)."""
        if self.slow_start:
            if self._cwnd < 2 * flight:
                self._cwnd = min(self._cwnd + acked, self._ssthresh)
        elif flight >= self._cwnd:
            self._acks_in_avoidance += acked
            if self._acks_in_avoidance >= self._cwnd:
                self._acks_in_avoidance -= self._cwnd
                self._cwnd += 1

    def timer_fired(self, now: int) -> tuple[Timer, Data] | None:
        """The timer's hour has come: what it sends, and as what. None: it was only armed anew."""
        self.due = None
        first = self._outstanding[0]
        if self._timer is Timer.TIMEOUT:
            if self._before_timeout is None:
                self._before_timeout = (self._cwnd, self._ssthresh)
            self._ssthresh, self._cwnd = max(self._cwnd // 2, 2), 1
            self._backoff += 1
            self._arm(Timer.TIMEOUT, now, self.rto_ns)
            return Timer.TIMEOUT, _again(first)
        if self._probed:
            self._arm(Timer.TIMEOUT, now, first.at + self.rto_ns - now)
            return None
        data = self._cut(now) if self.snd_nxt < self.written else _again(self._outstanding[-1])
        self._probed = True
        self._arm(Timer.TIMEOUT, now, self.rto_ns)
        return Timer.PROBE, data


def _again(sent: _Outstanding) -> Data:
    sent.again = True
    return Data(sent.data.seq, sent.data.end, push=sent.data.push, again=True)
