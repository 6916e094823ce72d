"""What the tests of quickack share: hosts with routes, their routing in words, and a conversation that stalls."""

from __future__ import annotations

import contextlib
import re
import socket
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from tests.polling import eventually

from ackward.kernel import sysctl
from ackward.kernel.namespaces import Namespace, call_inside, temporary

#: Between the 40 ms of a delayed ACK (TCP_DELACK_MIN) and any round without one.
SLOW_MS = 20.0


def ip(host: Namespace, *arguments: str) -> str:
    """Run ``ip`` inside ``host``; fails the test when ip fails."""
    done = subprocess.run(["ip", "-n", host.name, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def routing(host: Namespace) -> dict[str, list[str]]:
    """All routes and rules of a host in words, and a setting of its TCP, without the seconds that expiring routes have left."""
    found = {}
    for family in ("-4", "-6"):
        routes = ip(host, "-d", family, "route", "show", "table", "all")
        routes = re.sub(r"expires \d+sec", "expires", routes).replace("\n\t", " | ")
        found[f"routes{family}"] = sorted(re.sub(r" +", " ", line).strip() for line in routes.splitlines())
        found[f"rules{family}"] = ip(host, family, "rule", "show").splitlines()
    found["after idle"] = [str(sysctl.read(host, "net.ipv4.tcp_slow_start_after_idle"))]
    return found


def wire(one: Namespace, other: Namespace, name: str, number: int) -> None:
    """Join two hosts by a veth: .1 and ::1 on ``one``, .2 and ::2 on ``other``."""
    ends = ["link", "add", name, "netns", one.name, "type", "veth", "peer", "name", name, "netns", other.name]
    subprocess.run(["ip", *ends], check=True)
    for host, last in ((one, 1), (other, 2)):
        ip(host, "link", "set", name, "addrgenmode", "none")
        ip(host, "addr", "add", f"fe80::{last}/64", "dev", name, "nodad")
        ip(host, "addr", "add", f"198.19.{number}.{last}/24", "dev", name)
        ip(host, "addr", "add", f"fdac:{number}::{last}/64", "dev", name, "nodad")
        ip(host, "link", "set", name, "up")
    for host in (one, other):
        assert eventually(lambda host=host: "state UP" in ip(host, "link", "show", name))  # type: ignore[misc]


@contextmanager
def router() -> Iterator[Namespace]:
    """A host with two wires to another, and one default route of each family over the first."""
    with temporary("router") as host, temporary("beyond") as beyond:
        wire(host, beyond, "w0", 0)
        wire(host, beyond, "w1", 1)
        ip(host, "route", "add", "default", "via", "198.19.0.2")
        ip(host, "-6", "route", "add", "default", "via", "fdac:0::2")
        yield host


class Conversation:
    """One open connection whose client writes 100 B, then 200 B, and waits for 100 B: with Nagle on, a standoff."""

    def __init__(
        self,
        client: Namespace,
        server: Namespace,
        address: str,
        port: int,
        *,
        nagle: bool = True,
        mapped: bool = False,
    ) -> None:
        # ``mapped``: the server's socket is of IPv6 and the client speaks IPv4 (IPv4-mapped addresses).
        family = socket.AF_INET6 if ":" in address or mapped else socket.AF_INET
        bound = ("", port) if mapped else (address, port)
        self._listener = call_inside(
            server, socket.create_server, bound, family=family, dualstack_ipv6=mapped
        )
        self._server = threading.Thread(target=self._answer, daemon=True)
        self._server.start()
        self._client = call_inside(client, _connect, address, port)
        self._client.settimeout(20)
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not nagle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._server.join(20)
        self._listener.close()
        assert not self._server.is_alive()

    def _answer(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(ConnectionError):
            while _received(connection, 300):
                connection.sendall(b"a" * 100)

    def rounds(self, count: int) -> list[float]:
        """The times of so many rounds, in milliseconds."""
        times = []
        for _ in range(count):
            start = time.perf_counter()
            self._client.send(b"h" * 100)
            self._client.send(b"b" * 200)
            assert _received(self._client, 100)
            times.append((time.perf_counter() - start) * 1e3)
        return times

    def median(self, count: int = 12) -> float:
        """The median round, in milliseconds, after a few that let the kernel see a change of route."""
        self.rounds(3)
        return statistics.median(self.rounds(count))


def _connect(address: str, port: int) -> socket.socket:
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((address, port), timeout=5)
        except OSError:
            if time.monotonic() > deadline:
                raise


def _received(connection: socket.socket, count: int) -> bool:
    while count:
        data = connection.recv(count)
        if not data:
            return False
        count -= len(data)
    return True


def advertise(host: Namespace, device: str, lifetime: int) -> None:
    """Send a router advertisement (RFC 4861, 4.2) of so many seconds out of ``device``."""

    def send() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            index = socket.if_nametoindex(device)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            raw.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0), ("ff02::1", 0, 0, index))

    call_inside(host, send)
