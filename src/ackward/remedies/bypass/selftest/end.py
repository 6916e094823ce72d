"""One program's end of a connection: its socket, and how far it is in what it writes and reads."""

from __future__ import annotations

import select
import socket
import struct
from dataclasses import dataclass, field
from typing import Literal

_EDGES = select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET

#: What is written: no part of it is like another, so that lost, doubled and swapped bytes change the checksum.
_STREAM = b"".join(struct.pack(">I", (number * 2654435761) % (1 << 32)) for number in range(1 << 18))


def stream(start: int, count: int) -> bytes:
    """The bytes from ``start`` on of what every program writes."""
    start %= len(_STREAM)
    part = _STREAM[start : start + count]
    while len(part) < count:
        part += _STREAM[: count - len(part)]
    return part


Who = Literal["client", "server"]


@dataclass
class End:
    """One program's end of the connection."""

    socket: socket.socket
    #: Bytes that it has written of its stream, and read of the other end's.
    written: int = 0
    read: int = 0
    #: Whether it will write no more (shutdown or close), and whether it was closed.
    finished: bool = False
    closed: bool = False
    edges: select.epoll = field(default_factory=select.epoll)
    other: End = field(init=False)

    def __post_init__(self) -> None:
        self.edges.register(self.socket.fileno(), _EDGES)

    def next_bytes(self, count: int) -> bytes:
        """The next bytes of what it has to say."""
        return stream(self.written, count)

    def release(self) -> None:
        """Let go of everything, also of a socket that the dialogue has not closed."""
        self.edges.close()
        self.socket.close()
