"""The receiving half of one end: when its ACKs leave.

Two policies. ``threshold`` N > 0: an ACK after N segments or when the timer fires (Onload's EF_DYNAMIC_ACK_THRESH; 1 is
an ACK for each segment). ``threshold`` 0 is Linux's:

- at once if more than one full segment waits for its ACK (RFC 5681 4.2, RFC 9293 3.8.6.3; ``__tcp_ack_snd_check``);
- at once in quick mode: a budget is left and the connection is not interactive ("pingpong"; ``tcp_in_quickack_mode``);
- when the program has read all, and the connection is not interactive or two small segments wait
  (``tcp_cleanup_rbuf``);
- else when the timer fires. That ends pingpong (``tcp_delack_timer_handler``); data sent within ``delack`` of data
  that came enters it (``tcp_event_data_sent``).

Under both: data takes the ACK along, and what had arrived before is acknowledged at once (a D-SACK, RFC 2883 4; it also
refills the budget and ends pingpong, ``tcp_data_queue``).
"""

from __future__ import annotations

from dataclasses import dataclass

from ackward.model.tcp_constants import MAX_QUICKACKS, MSS_DEFAULT
from ackward.predict.timers import expiry


@dataclass(frozen=True)
class AckPolicy:
    """How one end acknowledges; times in nanoseconds."""

    delack_ns: int
    threshold: int
    quickack: bool
    quick: int
    pingpong_threshold: int
    tick_ns: int


class Receiver:
    """What has arrived, and whether an ACK of it waits."""

    def __init__(self, policy: AckPolicy) -> None:
        self.policy = policy
        self.rcv_nxt = 0
        self.due: int | None = None
        #: When the oldest data came whose ACK waits; None if none does.
        self.pending_since: int | None = None
        #: When the segment left whose timestamp the next ACK echoes.
        self.echo = 0
        self._acked = 0
        self._segments = 0
        self._small = 0  # ICSK_ACK_PUSHED, ICSK_ACK_PUSHED2: ends of writes among what waits, up to two
        self._full = MSS_DEFAULT
        self._quick = policy.quick
        self._pingpong = 0
        self._last = 0

    @property
    def interactive(self) -> bool:
        """``inet_csk_in_pingpong_mode``."""
        return self._pingpong >= self.policy.pingpong_threshold

    def arrived(self, now: int, seq: int, end: int, *, left: int, push: bool, rto_ns: int) -> bool:
        """Data came, in order or once more, that ``left`` the sender then. Gives whether it is new."""
        if seq <= self._acked:
            self.echo = (
                left  # RFC 7323 4.3, tcp_replace_ts_recent(): nothing later than the next ACK's first byte
            )
        if self.pending_since is None:
            self.pending_since = now
        if end <= self.rcv_nxt:
            self._quick, self._pingpong, self._segments = MAX_QUICKACKS, 0, self.policy.threshold
            return False
        if now - self._last > rto_ns:
            self._quick = MAX_QUICKACKS  # tcp_event_data_recv: the sender restarts, its window needs ACKs
        self._last = now
        size = end - seq
        if size < self._full:
            self._small = 2 if self._small else 1  # tcp_measure_rcv_mss
        elif push:
            self._small = max(self._small, 1)
        self._full = max(self._full, size)
        self.rcv_nxt = end
        self._segments += 1
        return True

    def acks_now(self, now: int) -> bool:
        """Whether what came is acknowledged at once; if not, the timer runs."""
        if self.pending_since is None:
            return False
        if self.policy.quickack:
            now_ = True
        elif self.policy.threshold:
            now_ = self._segments >= self.policy.threshold
        else:
            now_ = self.rcv_nxt - self._acked > self._full or (self._quick > 0 and not self.interactive)
        if not now_ and self.due is None:
            self.due = expiry(now, self.policy.delack_ns, self.policy.tick_ns)
        return now_

    def acks_after_read(self) -> bool:
        """Whether the program's read of everything sends the ACK."""
        if self.pending_since is None or self.policy.threshold:
            return False
        return self._small >= 2 or (self._small == 1 and not self.interactive)

    def timer_fired(self) -> None:
        """The delayed-ACK timer went off with an ACK pending: the connection was not interactive after all."""
        assert self.pending_since is not None
        self._pingpong = 0

    def ack_sent(self, now: int, *, interactive: bool) -> int:
        """An ACK leaves. Gives how long the oldest data that it acknowledges had waited.

        ``interactive``: with data, the first of what one write let go (segmentation offload sends it as one).
        """
        waited = 0
        if self.pending_since is not None:
            waited = now - self.pending_since
            self._quick = max(self._quick - 1, 0)
        # Before data came, there is no delayed-ACK time that could be kept (icsk_ack.ato is 0).
        if interactive and self.rcv_nxt and now - self._last < self.policy.delack_ns:
            self._pingpong = min(self._pingpong + 1, 255)
        self.pending_since = self.due = None
        self._acked, self._segments, self._small = self.rcv_nxt, 0, 0
        return waited
