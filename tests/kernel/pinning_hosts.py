"""What the tests of pinning share: conversations over sockets of this process, and how late each ACK was on the wire."""

from __future__ import annotations

import selectors
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from ackward.kernel.namespaces import Namespace, call_inside
from ackward.kernel.proc_tcp import delayed_acks
from ackward.lab.topology import DEVICE, TwoHosts

REQUEST = (b"h" * 100, b"b" * 200)
ANSWER = b"a" * 100


class Conversations:
    """Open connections, both ends in this process: a client that writes a request in two pieces, with Nagle on."""

    def __init__(self, hosts: TwoHosts, family: int = 4, *, mapped: bool = False) -> None:
        self._stack = ExitStack()
        self._client = hosts.client
        self._address = hosts.server_address(family)
        of = socket.AF_INET6 if family == 6 or mapped else socket.AF_INET
        bound = "" if mapped else self._address
        self.listener = self._stack.enter_context(
            call_inside(
                hosts.server, socket.create_server, (bound, 0), family=of, dualstack_ipv6=mapped, backlog=512
            )
        )
        self.port = self.listener.getsockname()[1]
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self) -> tuple[socket.socket, socket.socket]:
        """One more connection: the client's end and the server's."""
        client = call_inside(self._client, socket.create_connection, (self._address, self.port), 10)
        self._stack.enter_context(client)
        server = self._stack.enter_context(self.listener.accept()[0])
        self.pairs.append((client, server))
        return client, server

    def rounds(self, count: int) -> None:
        """So many rounds on each connection, all connections at once."""
        with selectors.DefaultSelector() as selector:
            for client, server in self.pairs:
                left = [count]
                selector.register(
                    server, selectors.EVENT_READ, (server, REQUEST[0] + REQUEST[1], [0], None, left)
                )
                selector.register(client, selectors.EVENT_READ, (client, ANSWER, [0], server, left))
                _ask(client)
            open_ends = len(self.pairs)
            while open_ends:
                events = selector.select(10)
                assert events, "the conversation has stopped"
                for key, _ in events:
                    end, whole, got, other, left = key.data
                    got[0] += len(end.recv(len(whole) - got[0]))
                    if got[0] < len(whole):
                        continue
                    got[0] = 0
                    if other is None:
                        end.sendall(ANSWER)
                    else:
                        left[0] -= 1
                        if left[0]:
                            _ask(end)
                        else:
                            open_ends -= 1


def _ask(client: socket.socket) -> None:
    for piece in REQUEST:
        client.send(piece)


_SO_TIMESTAMPNS, _PACKET_OUTGOING = 35, 4  # include/uapi/asm-generic/socket.h, linux/if_packet.h
_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL


class Wire:
    """A capture at the server's device. ``lateness`` is how long each data segment waited there for its ACK."""

    def __init__(self, host: Namespace) -> None:
        self._socket = call_inside(
            host, socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS)
        )
        self._socket.bind((DEVICE, _ALL_PROTOCOLS))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def lateness(self, port: int) -> list[float]:
        """Milliseconds, for each data segment that came to a port; nothing may have been lost."""
        waiting: dict[int, list[tuple[int, int]]] = {}
        late: list[float] = []
        for at, outgoing, frame in self._frames():
            family, header = (4, 14 + (frame[14] & 15) * 4) if frame[14] >> 4 == 4 else (6, 54)
            if frame[23 if family == 4 else 20] != socket.IPPROTO_TCP:
                continue
            sport, dport, seq, ack = struct.unpack_from("!HHII", frame, header)
            # The length of the IP packet: a short frame may be padded.
            end = 14 + struct.unpack_from("!H", frame, 16)[0] if family == 4 else len(frame)
            length = end - header - (frame[header + 12] >> 4) * 4
            if dport == port and length > 0 and not outgoing:
                waiting.setdefault(sport, []).append((seq + length, at))
            elif sport == port and outgoing:
                queue = waiting.get(dport, [])
                while queue and (ack - queue[0][0]) & 0xFFFFFFFF < 1 << 31:
                    late.append((at - queue.pop(0)[1]) / 1e6)
        dropped = struct.unpack("=II", self._socket.getsockopt(263, 6, 8))[1]  # SOL_PACKET, PACKET_STATISTICS
        assert not dropped
        assert not any(waiting.values())
        return late

    def _frames(self) -> Iterator[tuple[int, bool, bytes]]:
        while True:
            try:
                data, control, _, address = self._socket.recvmsg(256, 64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            seconds, nanoseconds = struct.unpack_from("=qq", control[0][2])
            yield seconds * 1_000_000_000 + nanoseconds, address[2] == _PACKET_OUTGOING, data


@contextmanager
def firewall(host: Namespace, ruleset: str) -> Iterator[None]:
    """Rules of nftables inside a host, gone at the end."""
    command = ["ip", "netns", "exec", host.name, "nft"]
    subprocess.run([*command, "-f", "-"], input=ruleset, text=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*command, "flush", "ruleset"], check=True)


def delayed(hosts: TwoHosts) -> int:
    """How many ACKs the server's timers have sent so far."""
    count = delayed_acks(hosts.server)
    assert count is not None
    return count
