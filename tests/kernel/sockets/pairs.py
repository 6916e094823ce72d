"""Connections over a loopback, and what `ackward sockets` says of their ends."""

from __future__ import annotations

import os
import socket

from ackward.kernel.namespaces import Namespace, call_inside
from ackward.loop.sockets import sockets
from ackward.model.sockets import Socket, SocketReport


class Pair:
    """Two ends of a connection over the loopback of a namespace."""

    def __init__(self, host: Namespace, address: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = call_inside(host, socket.create_server, (address, port), family=family)
        self.client = call_inside(host, socket.create_connection, self.listener.getsockname()[:2])
        self.server, _ = self.listener.accept()

    def close(self) -> None:
        for end in (self.client, self.server, self.listener):
            end.close()

    def seen(self, end: socket.socket) -> Socket:
        """What `sockets` says of one end."""
        return of(sockets(netns=self.host.name), end)


def of(report: SocketReport, end: socket.socket) -> Socket:
    inode = os.fstat(end.fileno()).st_ino
    [found] = [one for one in report.sockets if one.inode == inode]
    return found
