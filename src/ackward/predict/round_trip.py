"""The smoothed round trip and the retransmission timeout: RFC 6298 as Linux computes it (``tcp_rtt_estimator``)."""

from __future__ import annotations


class RoundTrip:
    """``srtt_ns`` and ``rto_ns``. Linux's floor is on the variance: the timeout is never below SRTT + rto_min."""

    def __init__(self, first_ns: int, rto_min_ns: int) -> None:
        """``first_ns`` is the handshake's round trip."""
        self._rto_min_ns = rto_min_ns
        self._srtt8 = first_ns * 8
        self._deviation4 = first_ns * 2
        self._variance = self._largest = max(self._deviation4, rto_min_ns)
        self._window_end = 0

    @property
    def srtt_ns(self) -> int:
        """Smoothed round trip."""
        return self._srtt8 // 8

    @property
    def rto_ns(self) -> int:
        """Retransmission timeout, not backed off."""
        return self.srtt_ns + self._variance

    def sample(self, took_ns: int, snd_una: int, snd_nxt: int) -> None:
        """One measured round trip; ``snd_una`` after the ACK that measured it."""
        error = took_ns - self._srtt8 // 8
        self._srtt8 = max(self._srtt8 + error, 1)
        if error < 0:
            error = -error - self._deviation4 // 4
            if error > 0:
                error //= 8  # a round trip that shrank says little about the next one
        else:
            error -= self._deviation4 // 4
        self._deviation4 += error
        if self._deviation4 > self._largest:
            self._largest = self._deviation4
            self._variance = max(self._variance, self._largest)
        if snd_una > self._window_end:
            if self._largest < self._variance:
                self._variance -= (self._variance - self._largest) // 4
            self._window_end = snd_nxt
            self._largest = self._rto_min_ns
