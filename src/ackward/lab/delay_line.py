"""The long link's machine room: a process in the router's namespace that holds each packet for a constant time.

``python -m ackward.lab.delay_line WAN`` (standard library only) takes packets from two NFQUEUEs, one a direction, and
gives each back to the kernel when it is due, or never. It works where netem is not built in, and unlike netem it can
lose a chosen segment. Without ``NFQA_CFG_F_GSO`` the kernel splits offloaded packets before they get here, so the link
carries, and loses, single segments, whatever the hosts' offloads are. Laws: packets of one direction leave in the
order in which they came; a packet leaves no earlier than its delay.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import sys
import time
from collections import deque
from collections.abc import Mapping

from ackward.kernel.nfqueue import Queues, Verdict, verdict
from ackward.lab.wan import ACK, Line, Losses, Wan, read

#: NFQUEUE numbers; the router's namespace is ours alone.
TO_SERVER, TO_CLIENT = 1, 2

_COPIED = 128  # IPv6 and the longest TCP header
_LONGEST = 100_000  # packets; beyond it the kernel drops, as a router would
_PR_SET_TIMERSLACK = 29
#: An idle virtual processor wakes 0.15 to 0.25 ms late (measured); the last stretch of a wait is spent awake.
_AWAKE_SECONDS = 0.0003


class Direction:
    """Packets on their way along one line."""

    def __init__(self, queue: int, line: Line) -> None:
        self._queue, self._line, self._losses = queue, line, Losses(line.losses)
        self._way: deque[tuple[float, int]] = deque()
        self._acks: dict[
            bytes, tuple[float, int, int]
        ] = {}  # connection -> until when, how many, the newest's id
        self._told: dict[bytes, int] = {}  # connection -> what it acknowledged last

    def enter(self, now: float, identity: int, data: bytes) -> list[bytes]:
        """A packet arrives; gives the verdicts on packets that are lost now."""
        packet = read(data)
        if packet is None:
            self._send(now, identity)
            return []
        if self._losses.take(packet):
            return [self._verdict(identity, Verdict.DROP)]
        if self._line.thin == 1:
            self._send(now, identity)
            return []
        told = self._told.get(packet.connection)
        if packet.flags & ACK and (told is None or (packet.ack - told) & 0xFFFFFFFF < 1 << 31):
            self._told[packet.connection] = packet.ack
        held = packet.is_pure_ack and told is not None and not packet.sacks
        news = (packet.ack - (told or 0)) & 0xFFFFFFFF
        # Two processors may hand over two ACKs in the wrong order.
        news = 0 if news >= 1 << 31 else news
        weight = -(-news // self._line.thin_size) if self._line.thin_size else min(news, 1)
        return self._thin(now, identity, packet.connection, weight, held=held)

    def _thin(self, now: float, identity: int, connection: bytes, weight: int, *, held: bool) -> list[bytes]:
        """Any newer segment replaces a pure ACK that waits: it acknowledges as much. A window update waits with it."""
        until, count, older = self._acks.pop(connection, (now + self._line.thin_hold / 1000, 0, -1))
        waits = older >= 0
        if held and (weight or waits) and count + weight < self._line.thin:
            self._acks[connection] = (until, count + weight, identity)
        else:
            self._send(now, identity)
        return [self._verdict(older, Verdict.DROP)] if waits else []

    def _send(self, now: float, identity: int) -> None:
        self._way.append((now + self._line.delay / 1000, identity))

    def leave(self, now: float) -> list[bytes]:
        """The verdicts on packets that are due."""
        for connection, (until, _, identity) in list(self._acks.items()):
            if until <= now:
                del self._acks[connection]
                self._send(now, identity)
        due = []
        while self._way and self._way[0][0] <= now:
            due.append(self._verdict(self._way.popleft()[1], Verdict.ACCEPT))
        return due

    def next_moment(self) -> float:
        """When something is due here next; infinity if nothing is on its way."""
        moments = [until for until, _, _ in self._acks.values()]
        if self._way:
            moments.append(self._way[0][0])
        return min(moments, default=float("inf"))

    def _verdict(self, identity: int, what: Verdict) -> bytes:
        return verdict(self._queue, identity, what)


def _be_punctual() -> None:
    """Ask for exact timers and for the processor at once; where that is refused the link is merely less exact."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # nanoseconds; 50 us is the default
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        sys.stderr.write("the delay line runs without real-time priority: expect jitter on a busy machine\n")
    gc.freeze()


def carry(lines: Mapping[int, Line], *, whole: bool = False) -> int:
    """Be the link until ended, a line for each queue; prints ``ready`` once packets are taken.

    ``whole``: offloaded packets are not split before they get here, which is cheaper; a loss would
    take many segments.
    """
    try:
        queues = Queues(tuple(lines), copied=_COPIED, longest=_LONGEST, whole=whole)
    except OSError as error:
        sys.stderr.write(f"{error.strerror or error}\n")
        return 1
    directions = {queue: Direction(queue, line) for queue, line in lines.items()}
    _be_punctual()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        moment = min(direction.next_moment() for direction in directions.values())
        wait = None if moment == float("inf") else max(0.0, moment - _AWAKE_SECONDS - time.monotonic())
        # select, not epoll: epoll counts in whole milliseconds.
        select.select([queues.socket], [], [], wait)
        now = time.monotonic()
        verdicts: list[bytes] = []
        for queue, identity, _, data in queues.arrived():
            verdicts += directions[queue].enter(now, identity, data)
        for direction in directions.values():
            verdicts += direction.leave(time.monotonic())
        queues.settle(verdicts)


def main(arguments: list[str]) -> int:
    """Be the link between two hosts."""
    wan = Wan.from_json(arguments[0])
    return carry({TO_SERVER: wan.to_server, TO_CLIENT: wan.to_client})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
