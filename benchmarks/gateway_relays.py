"""Relays that do nothing but move bytes, one process each, for ``benchmarks.gateway_copying``.

``python -m benchmarks.gateway_relays WAY PORT TARGET [OBJECT]``: whoever connects to PORT gets what TARGET sends. One
direction is moved: the other is empty in these loads. ``probe PORT RELAY LIMIT``: what a relay does to a client that
does not read for a while, and then reads to the end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import sys
import threading
import time
import zlib
from collections import deque
from contextlib import suppress
from pathlib import Path

from ackward.kernel import sock_maps
from ackward.kernel.libbpf import Map, Object

CHUNK = 256 << 10
MOST = 1 << 20
#: Buffers that the kernel may still be sending from.
BUFFERS = 64
# include/uapi/linux/errqueue.h, include/linux/socket.h, include/uapi/asm-generic/socket.h
SO_ZEROCOPY, MSG_ZEROCOPY = 60, 0x4000000
#: struct sock_extended_err: errno, origin, type, code, padding, and the first and last call that it is about.
_NOTICE = struct.Struct("=IBBBBII")


class Way:
    """From ``source`` to ``sink``. ``stalled``: the sink takes no more; ``ended``: the source's end has come."""

    wanted = select.EPOLLIN

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.stalled = self.ended = False

    def pump(self) -> None:
        """Move what can be moved."""
        raise NotImplementedError

    def noticed(self) -> None:
        """The sink has something in its error queue."""


class Copy(Way):
    """recv(2) and send(2)."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        super().__init__(source, sink)
        self._buffer = memoryview(bytearray(CHUNK))
        self._held = self._buffer[:0]

    def pump(self) -> None:
        try:
            if not self._held:
                count = self.source.recv_into(self._buffer)
                self.ended = not count
                self._held = self._buffer[:count]
        except BlockingIOError:
            return
        try:
            while self._held:
                self._held = self._held[self.sink.send(self._held) :]
            self.stalled = False
        except BlockingIOError:
            self.stalled = True


class ZeroCopy(Way):
    """The same with MSG_ZEROCOPY: a buffer is used again when the kernel has told that it is done with it."""

    free = [memoryview(bytearray(CHUNK)) for _ in range(BUFFERS)]  # noqa: RUF012 - shared by all

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        super().__init__(source, sink)
        sink.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        self._buffer: memoryview | None = None
        self._held = memoryview(b"")
        self._sent = 0
        self._busy: deque[tuple[int, memoryview]] = deque()

    def pump(self) -> None:
        if not self._held:
            if not self.free:
                self.stalled = True  # until a notice brings one back
                return
            buffer = self.free.pop()
            try:
                count = self.source.recv_into(buffer)
            except BlockingIOError:
                count = -1
            if count <= 0:
                self.ended = not count
                self.free.append(buffer)
                return
            self._buffer, self._held = buffer, buffer[:count]
        try:
            while self._held:
                self._held = self._held[self.sink.send(self._held, MSG_ZEROCOPY) :]
                self._sent += 1
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):  # ENOBUFS: too many notices are on their way
                raise
            self.stalled = True
            return
        assert self._buffer is not None
        self._busy.append((self._sent - 1, self._buffer))
        self.stalled = False

    def noticed(self) -> None:
        while True:
            try:
                _, ancillary, _, _ = self.sink.recvmsg(0, 128, socket.MSG_ERRQUEUE)
            except BlockingIOError:
                return
            for _, _, data in ancillary:
                last = _NOTICE.unpack_from(data)[-1]
                while self._busy and self._busy[0][0] <= last:
                    self.free.append(self._busy.popleft()[1])


class Splice(Way):
    """splice(2) through a pipe of its own."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        super().__init__(source, sink)
        self._out, self._into = os.pipe2(os.O_NONBLOCK)
        with suppress(PermissionError):  # beyond pipe-user-pages-soft: the default size
            fcntl.fcntl(self._into, fcntl.F_SETPIPE_SZ, MOST)
        self._held = 0

    def pump(self) -> None:
        flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
        try:
            if not self._held:
                self._held = os.splice(self.source.fileno(), self._into, MOST, flags=flags)
                self.ended = not self._held
        except BlockingIOError:
            return
        try:
            while self._held:
                self._held -= os.splice(self._out, self.sink.fileno(), self._held, flags=flags)
            self.stalled = False
        except BlockingIOError:
            self.stalled = True


class SockMap(Copy):
    """A program redirects in the kernel; what had come before the sockets joined is copied. It is told of the end alone."""

    wanted = select.EPOLLRDHUP
    peers: Map

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        super().__init__(source, sink)
        for one, other in ((sink, source), (source, sink)):
            key = struct.pack("=II", one.getsockname()[1], one.getpeername()[1])
            self.peers.put(key, struct.pack("=I", other.fileno()))
        super().pump()

    def pump(self) -> None:
        self.ended = True


WAYS = {"copy": Copy, "zerocopy": ZeroCopy, "splice": Splice, "sockmap": SockMap}


def relay(way: type[Way], port: int, target: int) -> None:
    """Be a relay until killed."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    pairs: dict[int, Way] = {}
    print("ready", flush=True)
    while True:
        for descriptor, events in poll.poll():
            if descriptor == listener.fileno():
                sink, _ = listener.accept()
                source = socket.create_connection(("127.0.0.1", target))
                for one in (source, sink):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    one.settimeout(0)
                pairs[source.fileno()] = pairs[sink.fileno()] = way(source, sink)
                poll.register(source, way.wanted)
                poll.register(sink, 0)
            elif pair := pairs.get(descriptor):  # else it ended in this batch
                try:
                    turn(poll, pair, events, of_sink=descriptor == pair.sink.fileno())
                except OSError:
                    for one in (pair.source, pair.sink):
                        pairs.pop(one.fileno())
                        one.close()


def turn(poll: select.epoll, pair: Way, events: int, *, of_sink: bool) -> None:
    """What events call for. Raises OSError when the pair is done with."""
    if of_sink and events & select.EPOLLERR:
        pair.noticed()
    if pair.ended:
        if of_sink and events & select.EPOLLHUP:
            raise ConnectionResetError
        return
    stalled = pair.stalled
    pair.pump()
    if pair.ended:
        poll.modify(pair.source, select.EPOLLET)  # its hang-up is told once
        pair.sink.shutdown(socket.SHUT_WR)
    elif pair.stalled != stalled:
        poll.modify(pair.source, 0 if pair.stalled else pair.wanted)
        poll.modify(pair.sink, select.EPOLLOUT if pair.stalled else 0)


def probe(port: int, through: int, limit: int) -> None:
    """A client that does not read for a second, then reads to the end: what the server got rid of, what was lost."""
    block = os.urandom(1 << 20)
    sent = crc = 0
    server = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        nonlocal sent, crc
        connection, _ = server.accept()
        time.sleep(0.2)  # the relay has joined its sockets by then
        connection.settimeout(5)
        with connection:
            try:
                while sent < limit:
                    count = connection.send(block)
                    crc = zlib.crc32(block[:count], crc)
                    sent += count
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)
            except OSError:
                return

    print("ready", flush=True)
    sys.stdin.readline()
    threading.Thread(target=serve, daemon=True).start()
    client = socket.create_connection(("127.0.0.1", through))
    client.settimeout(3)
    time.sleep(1)
    unread = sent
    come = seen = 0
    with suppress(OSError):  # it told no end
        while data := client.recv(1 << 20):
            come += len(data)
            seen = zlib.crc32(data, seen)
    print(f"{unread} {sent} {come} {int(seen == crc)}", flush=True)


def main() -> None:
    role, *rest = sys.argv[1:]
    if role == "probe":
        probe(*map(int, rest))
        return
    if role == "sockmap":
        with Object(Path(rest[2]), purpose="there is no sockmap to measure") as program:
            program.load()
            SockMap.peers = program.map("peers")
            sock_maps.attach(program.program_fd("received"), SockMap.peers.fd, sock_maps.SK_SKB_VERDICT)
            relay(SockMap, int(rest[0]), int(rest[1]))
    relay(WAYS[role], int(rest[0]), int(rest[1]))


if __name__ == "__main__":
    main()
