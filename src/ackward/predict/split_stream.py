"""A stream of segments over one TCP connection: when each leaves and when each arrives.

The connection is a max-plus system: a segment leaves at the latest of three moments: it is there; the ACK has come
that makes room for it; the one before has left the wire. Hence the laws: no segment arrives before it was
there plus half a round trip; the order is kept; nothing that comes later, no narrower window and no slower wire makes
anything arrive sooner.

Windows, in segments:

- **Slow start** (RFC 5681, section 3.1; RFC 3465): the window is the initial one plus what was acknowledged, so it
  doubles each round trip. ACKs of every second segment open it as far as ACKs of each, since Linux counts what
  they acknowledge (tcp_slow_start()). That a delayed ACK may hold up the odd last segment of a flight is left out.
- **The receiver's window**, constant. Slow start ends there or when the wire is full; the bottleneck's queue is
  taken to hold the overshoot, and HyStart (RFC 9406) to leave slow start without loss of speed.
- **Loss**: the first is expected after ``1 / loss`` segments. From then on the window is the mean one of CUBIC (RFC
  9438, section 5.1), Linux's default, or Reno's (Mathis, Semke, Mahdavi and Ott 1997: 1.22 / sqrt(loss))
  where that is larger, as CUBIC does. A lost segment is sent again one round trip later and keeps those behind it from
  being read: what is expected of that is added. Timeouts and lost handshakes are left out, so ``loss`` is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Moments = NDArray[np.float64]  # nanoseconds

#: Segments that are worked out one by one at most; later ones follow at the leg's steady pace.
MOST_SEGMENTS = 1 << 18
_FEWEST_SEGMENTS = 4096

_CUBIC_C, _CUBIC_BETA = 0.4, 0.7  # RFC 9438, sections 5.1 and 4.6
_RENO_MEAN_SQUARED = 1.5  # Mathis et al. 1997, an ACK for each segment


@dataclass(frozen=True)
class Connection:
    """One TCP connection as its data sender sees it. Times in nanoseconds, windows in segments.

    ``initial_window`` None: no slow start. ``receive_window`` None: wide enough. ``interval_ns`` is what one segment
    takes on the wire, ``loss`` the share of segments that are lost.
    """

    rtt_ns: int
    interval_ns: float
    initial_window: int | None
    receive_window: int | None
    loss: float = 0.0

    @property
    def pace_ns(self) -> float:
        """The time between two segments on the wire; of what is lost another copy passes, too."""
        return self.interval_ns / (1 - self.loss)

    @property
    def ack_ns(self) -> float:
        """From a segment's departure to the arrival of its ACK."""
        return self.pace_ns + self.rtt_ns

    @property
    def widest(self) -> float:
        """The window in the long run; infinite if only the wire limits."""
        by_receiver = math.inf if self.receive_window is None else self.receive_window
        return min(by_receiver, loss_window(self.rtt_ns, self.loss))

    @property
    def unsteady_segments(self) -> float:
        """After how many segments the pace is steady: the first loss, and slow start up to the widest window."""
        product = self.rtt_ns / self.pace_ns if self.pace_ns else math.inf
        width = min(self.widest, product)
        return (1 / self.loss if self.loss else 0) + (2 * width if math.isfinite(width) else 0)

    def waits_for(self, count: int) -> NDArray[np.int64]:
        """For each of ``count`` segments how many before it must be acknowledged; never falls."""
        index = np.arange(count, dtype=np.int64)
        acknowledged = np.zeros(count, np.int64)
        if self.initial_window is not None:
            # Sent < acknowledged + window, and the window is the initial one + acknowledged.
            acknowledged = np.maximum(acknowledged, (index + 2 - self.initial_window) // 2)
        if self.receive_window is not None:
            acknowledged = np.maximum(acknowledged, index + 1 - self.receive_window)
        if self.loss:
            window = max(1, math.floor(loss_window(self.rtt_ns, self.loss)))
            harmed = index >= 1 / self.loss
            acknowledged = np.maximum(acknowledged, np.where(harmed, index + 1 - window, 0))
        return acknowledged


@dataclass(frozen=True)
class Stream:
    """When the segments of a stream are at some node: the first ones (``head``) each, and the last of all ``count``."""

    head: Moments
    last: float
    count: int

    @classmethod
    def written(cls, at_ns: float, count: int, worked_out: int) -> Stream:
        """A whole answer, written at once."""
        return cls(np.full(min(count, worked_out), at_ns), at_ns, count)

    def later(self, ns: float) -> Stream:
        """The same, each segment ``ns`` later."""
        return Stream(self.head + ns, self.last + ns, self.count)


@dataclass(frozen=True)
class Passage:
    """A stream's way over one connection."""

    departures: Moments
    arrived: Stream


def loss_window(rtt_ns: int, loss: float) -> float:
    """The mean congestion window in segments where a share ``loss`` of segments is lost; infinite without loss."""
    if not loss:
        return math.inf
    cubic = (_CUBIC_C * (3 + _CUBIC_BETA) / (4 * (1 - _CUBIC_BETA))) ** 0.25 * (rtt_ns / 1e9 / loss) ** 0.75
    return float(max(cubic, math.sqrt(_RENO_MEAN_SQUARED / loss)))


def worth_working_out(connections: list[Connection]) -> int:
    """How many segments to work out one by one, so that all connections have become steady."""
    unsteady = max(connection.unsteady_segments for connection in connections)
    return int(min(MOST_SEGMENTS, max(_FEWEST_SEGMENTS, 4 * unsteady)))


def carry(stream: Stream, connection: Connection) -> Passage:
    """Send a stream over a connection as it becomes available at the sender."""
    pace = connection.pace_ns
    departures = _departures(stream.head, connection.waits_for(len(stream.head)), connection.ack_ns, pace)
    flight = pace + connection.rtt_ns / 2
    index = np.arange(1, len(departures) + 1, dtype=np.float64)
    at_risk = np.minimum(index, loss_window(connection.rtt_ns, connection.loss))
    repair = connection.rtt_ns * (1 - (1 - connection.loss) ** at_risk)
    arrivals = departures + flight + repair
    last = float(arrivals[-1])
    if stream.count > len(arrivals):
        last = max(stream.last + flight + float(repair[-1]), _later_end(arrivals, stream.count, connection))
    return Passage(departures, Stream(arrivals, last, stream.count))


def _later_end(arrivals: Moments, count: int, connection: Connection) -> float:
    """When the last of ``count`` segments arrives, from those that were worked out: all is steady by then."""
    worked_out = len(arrivals)
    end = float(arrivals[-1]) + (count - worked_out) * connection.pace_ns
    if math.isinf(connection.widest):
        return end
    # In the long run a segment leaves when the one a window before is acknowledged, or at the wire's pace.
    window = max(1, math.floor(connection.widest))
    rounds = -(-(count - worked_out) // window)
    ancestor = count - 1 - rounds * window
    return max(end, float(arrivals[ancestor]) + rounds * connection.ack_ns) if ancestor >= 0 else end


def _departures(there: Moments, waits_for: NDArray[np.int64], ack_ns: float, pace: float) -> Moments:
    """The recurrence, a flight at a time: all segments whose ACKs belong to segments that have left already."""
    departures = np.empty_like(there)
    done = 0
    while done < len(there):
        end = int(np.searchsorted(waits_for, done, side="right"))
        awaited = waits_for[done:end]
        room = np.where(awaited > 0, departures[np.maximum(awaited, 1) - 1] + ack_ns, -np.inf)
        # Without the wire's pace taken off, "one after the other" is a running maximum.
        offsets = pace * np.arange(end - done)
        earliest = np.maximum(there[done:end], room) - offsets
        if done:
            earliest[0] = max(earliest[0], departures[done - 1] + pace)
        departures[done:end] = np.maximum.accumulate(earliest) + offsets
        done = end
    return departures
