"""A feed: messages at a constant pace on many connections, one way, nobody answers. Standard library only.

``python -m ackward.lab.feed send|read ADDRESS FEED``. Each message begins with the time at which it was due, so its
delay counts also what it waited in the sender's queue. Both halves print one JSON object when all is over.
"""

from __future__ import annotations

import array
import fcntl
import heapq
import json
import selectors
import socket
import statistics
import struct
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_SIOCOUTQNSD = 0x894B  # include/uapi/linux/sockios.h: bytes that were never sent
_SO_SNDBUFFORCE = 32  # include/uapi/asm-generic/socket.h
_SEND_BUFFER = 8 << 20  # more than any of these feeds can queue
_SND_CWND = 80  # offset of tcpi_snd_cwnd in struct tcp_info (include/uapi/linux/tcp.h)
_STAMP = struct.Struct("=q")
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Feed:
    """``messages`` of ``size`` bytes on each of ``connections``, one each ``interval`` milliseconds."""

    connections: int = 64
    messages: int = 32
    size: int = 5 * 1448
    interval: float = 100.0
    congestion: str = "cubic"
    port: int = 7000

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


def send(address: str, feed: Feed) -> dict[str, float]:
    """Serve the feed once. Gives the sender's own measures: congestion windows in segments, queues in bytes."""
    with socket.create_server(
        (address, feed.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=feed.connections
    ) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, feed.congestion.encode())
        listener.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        _say("ready")
        ends = [listener.accept()[0] for _ in range(feed.connections)]
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    windows: list[int] = []
    queues: list[int] = []
    began = time.monotonic()
    pace = feed.interval / 1000
    # Spread over the interval, so that the link meets single messages.
    due = [(began + pace * number / len(ends), number, feed.messages) for number in range(len(ends))]
    filler = b"F" * (feed.size - _STAMP.size)
    while due:
        moment, number, left = heapq.heappop(due)
        time.sleep(max(0.0, moment - time.monotonic()))
        end = ends[number]
        windows.append(_window(end))
        end.sendall(_STAMP.pack(int(moment * 1e9)) + filler)
        queues.append(_queued(end, _SIOCOUTQNSD))
        if left > 1:
            heapq.heappush(due, (moment + pace, number, left - 1))
    for end in ends:
        _drain(end)
        end.close()
    windows.sort()
    return {
        "cwnd_least": windows[0],
        "cwnd_median": statistics.median(windows),
        "queue_mean": statistics.fmean(queues),
        "queue_most": max(queues),
    }


def _window(end: socket.socket) -> int:
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SND_CWND + 4)
    (segments,) = struct.unpack_from("=I", info, _SND_CWND)
    return int(segments)


def _queued(end: socket.socket, which: int) -> int:
    octets = array.array("i", [0])
    fcntl.ioctl(end, which, octets)
    return octets[0]


def _drain(end: socket.socket) -> None:
    """Until all was acknowledged: its FIN is no part of the feed, and none of its probes brings one."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while _queued(end, termios.TIOCOUTQ) and time.monotonic() < deadline:
        time.sleep(0.001)


def read(address: str, feed: Feed) -> dict[str, float]:
    """Read the feed to its end. Gives what messages took from when they were due, in nanoseconds, and bits a second."""
    delays: list[int] = []
    bits, began = 0, time.monotonic()
    with selectors.DefaultSelector() as selector:
        for _ in range(feed.connections):
            end = socket.create_connection((address, feed.port), timeout=_PATIENCE_SECONDS)
            end.settimeout(0)
            selector.register(end, selectors.EVENT_READ, bytearray())
        while selector.get_map():
            for key, _ in selector.select(_PATIENCE_SECONDS):
                assert isinstance(key.fileobj, socket.socket)
                end, waiting = key.fileobj, key.data
                data = end.recv(1 << 20)
                if not data:
                    selector.unregister(end)
                    end.close()
                    continue
                waiting += data
                bits += 8 * len(data)
                while len(waiting) >= feed.size:
                    delays.append(time.monotonic_ns() - _STAMP.unpack_from(waiting)[0])
                    del waiting[: feed.size]
    cuts = statistics.quantiles(delays, n=100, method="inclusive")
    return {
        "messages": len(delays),
        "p50_ns": int(cuts[49]),
        "p99_ns": int(cuts[98]),
        "bits_per_second": bits / (time.monotonic() - began),
    }


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Be one half."""
    half, address, text = arguments
    feed = Feed(**json.loads(text))
    _say(json.dumps({"send": send, "read": read}[half](address, feed)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
