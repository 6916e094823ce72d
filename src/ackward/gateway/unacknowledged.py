"""What a connection's other end does not acknowledge, and what can be known of why. Reads sockets, changes none.

TCP sends a segment that is not acknowledged again, ever more slowly, for a quarter of an hour
(``net.ipv4.tcp_retries2``), and tells nobody. Two causes look alike from here: the path is gone, or it drops what is
too long for it and nobody hears of it (an MTU black hole: RFC 2923, section 2.1). They differ where later segments,
which may be shorter, arrive (SACK), and where the connection goes on once routers may fragment.

TCP_USER_TIMEOUT would end such connections, too; but also those whose reader pauses (a closed window, probes that are
answered: ``tcp_probe_timer()`` since Linux 5.11), and these are in order.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from ackward.kernel.sock_diag import tcp_info

if TYPE_CHECKING:
    from ackward.gateway.sockets import Socket

#: So many timeouts in a row for one segment are no accident (R1 in RFC 9293, section 3.8.3; ``tcp_retries1``).
SEVERAL: Final = 3
#: What every IPv4 path carries without fragments, headers apart (RFC 9293, section 3.7.1).
_SMALL: Final = 536
_COUNT: Final = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Unacknowledged:
    """What waits for an acknowledgement after timeouts.

    ``segment`` is the size in bytes that the kernel sends at once, ``path_mtu`` what it takes the path to carry,
    ``timeouts`` how often the oldest one timed out in a row, ``acknowledged`` the stream's bytes before it.
    ``others_arrive``: of later segments some were acknowledged (SACK). ``large``: on the average they are longer than
    what any path carries.
    """

    segment: int
    path_mtu: int
    timeouts: int
    acknowledged: int
    others_arrive: bool
    large: bool

    @property
    def may_be_too_long(self) -> bool:
        """Whether the size may be the reason."""
        return self.timeouts >= SEVERAL and self.large


def is_idle(sock: Socket) -> bool:
    """Whether nothing waits in it to be sent or acknowledged (SIOCOUTQ, tcp(7)), as far as the kernel tells.

    MPTCP tells since Linux 5.17.
    """
    try:
        (count,) = _COUNT.unpack(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return True
    return not count


def look(sock: Socket) -> Unacknowledged | None:
    """What this socket has sent again because of a timeout, and still waits for; None for nothing of the kind."""
    return judge(tcp_info(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)))


def judge(info: dict[str, int]) -> Unacknowledged | None:
    """The same from the fields of struct tcp_info."""
    if not info["unacked"] or not info["retransmits"]:
        return None
    outstanding = info["bytes_sent"] - info["bytes_retrans"] - info["bytes_acked"]
    return Unacknowledged(
        segment=info["snd_mss"],
        path_mtu=info["pmtu"],
        timeouts=info["retransmits"],
        acknowledged=info["bytes_acked"],
        others_arrive=info["sacked"] > 0,
        large=outstanding > _SMALL * info["unacked"],
    )


class Step(Enum):
    """What follows from a look at a socket."""

    WAIT = auto()
    SUSPECT = auto()  # its segments may be too long for the path: tell, and let routers fragment them
    WENT_ON = auto()  # and then it did go on
    GIVE_UP = auto()


class Patience:
    """How long one socket of a connection has waited for the acknowledgement of the same bytes."""

    __slots__ = ("_fragments", "_suspected", "since", "what")

    def __init__(self, now: float) -> None:
        self.since = now
        self.what: Unacknowledged | None = None
        self._suspected = self._fragments = False

    def see(self, what: Unacknowledged | None, now: float, limit: float) -> Step:
        """Take what a look found; ``now`` and ``limit`` in seconds."""
        before, self.what = self.what, what
        if what is None or before is None or what.acknowledged != before.acknowledged:
            self.since = now
            went_on, self._fragments = self._fragments, False
            if went_on:
                return Step.WENT_ON
        if what is None:
            return Step.WAIT
        if now - self.since >= limit:
            return Step.GIVE_UP
        if what.may_be_too_long and not self._suspected:
            self._suspected = True
            return Step.SUSPECT
        return Step.WAIT

    def fragments(self) -> None:
        """Routers may fragment from now on."""
        self._fragments = True
