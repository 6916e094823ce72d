"""What bounds the work that somebody unproved can cause."""

from __future__ import annotations


class TokenBucket:
    """At most ``rate`` a second in the long run, and a second's worth at once. Times in seconds."""

    __slots__ = ("_rate", "_since", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._since, self._tokens = rate, now, rate

    def take(self, now: float) -> bool:
        """Whether there is a token; it is gone then."""
        self._tokens = min(self._rate, self._tokens + (now - self._since) * self._rate)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
