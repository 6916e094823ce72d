"""Which sockets are likely to make somebody wait at this moment, told from one look at their state.

A look sees no past, so nothing here is called a cause: `ackward watch` measures. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from ackward.model.sockets import Socket, Suspect, Suspicion
from ackward.model.tcp_constants import DELACK_MIN_NS
from ackward.model.units import duration, plural, size

_RANK = {suspicion: rank for rank, suspicion in enumerate(Suspicion)}
#: Ages are told in ticks of up to 10 ms (HZ=100).
_TICK_NS = 10_000_000


def suspects(socket: Socket, peer: Socket | None = None) -> list[Suspect]:
    """All that is suspicious about a socket, worst first; ``peer`` is the other end if it is on this host too."""
    return [Suspect(what=what, why=why) for what, why in _suspicions(socket, peer)]


def worst_first(socket: Socket) -> tuple[int, bool, bool, int, str, str]:
    """A sort key: suspicious sockets, those that would delay an ACK, other connections, listeners."""
    rank = _RANK[socket.suspects[0].what] if socket.suspects else len(_RANK)
    is_listener = socket.remote is None
    return rank, is_listener, not socket.delays_acks, socket.netns, socket.local, socket.remote or ""


def _suspicions(socket: Socket, peer: Socket | None) -> Iterator[tuple[Suspicion, str]]:
    unsent, mss = socket.unsent_bytes or 0, socket.mss or 0
    if 0 < unsent < mss:
        if socket.cork:
            yield (
                Suspicion.HELD_BY_CORK,
                f"TCP_CORK holds {size(unsent)} until a whole segment of {size(mss)} is there",
            )
        elif socket.unacked and not socket.nodelay and _has_room(socket):
            reason = "Nagle holds" if socket.nodelay is False else "Nagle, if it is on, holds"
            waited = f", for {duration(socket.since_sent_ns)} so far" if socket.since_sent_ns else ""
            yield (
                Suspicion.HELD_BY_NAGLE,
                f"{reason} {size(unsent)} until the peer acknowledges {size(socket.unacked_bytes or 0)}{waited}",
            )
    if socket.ato_ns and socket.delays_acks and _owes_an_ack(socket, peer):
        mode = "pingpong" if socket.pingpong else "no quick ACKs left"
        known = "its peer waits for an ACK that" if peer else "data came and nothing was sent since: its ACK"
        yield Suspicion.ACK_DELAYED, f"{known} may be delayed for {duration(socket.ato_ns)} ({mode})"
    if socket.timer == "retransmission" and socket.retransmits:
        again = plural(socket.retransmits, "timeout")
        yield (
            Suspicion.RETRANSMITTING,
            f"{again} in a row without an ACK, next in {duration(socket.timer_expires_ns or 0)}",
        )
    # The same timer runs while TCP_CORK holds data (tcp_check_probe_timer()).
    if socket.timer == "zero-window-probe" and not socket.cork and not _fits_window(socket, default=False):
        yield (
            Suspicion.WINDOW_CLOSED,
            f"{size(unsent)} wait for the peer's program to read: its window is closed",
        )


def _has_room(socket: Socket) -> bool:
    """Whether neither window explains why data stays: then Nagle's rule is what is left."""
    if socket.retransmits or (socket.cwnd is not None and (socket.unacked or 0) >= socket.cwnd):
        return False
    return _fits_window(socket, default=True)


def _fits_window(socket: Socket, *, default: bool) -> bool:
    """Whether the peer's window has room for all that is unsent; ``default`` where the kernel does not tell."""
    if socket.window_bytes is None:
        return default
    return (socket.unacked_bytes or 0) + (socket.unsent_bytes or 0) <= socket.window_bytes


def _owes_an_ack(socket: Socket, peer: Socket | None) -> bool:
    if peer is not None:
        return bool(peer.unacked) and not peer.retransmits
    received, sent = socket.since_received_ns, socket.since_sent_ns
    if received is None or sent is None or not socket.bytes_received:
        return False
    # In the same tick an answer may have gone out, and the ACK with it.
    return received < sent and received <= max(socket.ato_ns or 0, DELACK_MIN_NS) + _TICK_NS
