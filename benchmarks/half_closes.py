"""Bytes that relays lose where both ends have half-closed: over TCP, and joined by the bypass.

    python -m benchmarks.half_closes [--connections 40]

Each end of a connection through the relay writes all it has, half-closes, and begins to read a little later. Told is how many
connections lost bytes. Rounds of TCP and bypass alternate. HAProxy runs with send buffers of 16 kB, so that TCP fills them.

HAProxy (2.6) takes an epoll event that says only "writable", after an earlier one that said EPOLLRDHUP, for the end of what can
be read: raw_sock_to_buf() then gives up without a recv(). Envoy (1.40) closes both connections when one has all its bytes and both
have ended, though it could not write all to the other.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tests.kernel.test_bypass_nat import envoy
from tests.polling import eventually

from ackward.kernel.namespaces import Namespace, call_inside, command_inside, temporary
from ackward.kernel.sockets import listening_ports
from ackward.model.scopes import BypassScope
from ackward.remedies.bypass.engine import attached
from ackward.remedies.bypass.rules import Rules
from ackward.remedies.transaction import identify

LISTENS, TARGET = 15001, 15002
SIZES = (30_000, 100_000, 300_000, 3_000_000, 4_500_000)
ROUNDS = 4
#: Of the ends, so that the relay cannot write all at once.
RECEIVE_BUFFER = 8192
#: When the client, and the server, begin to read.
LATE_S = (0.02, 0.15)

HAPROXY = f"""\
global
  nbthread 1
  tune.sndbuf.client 16384
  tune.sndbuf.server 16384
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen relay
  bind 127.0.0.1:{LISTENS}
  server there 127.0.0.1:{TARGET}
"""


def haproxy(directory: Path) -> list[str]:
    path = directory / "haproxy.cfg"
    path.write_text(HAPROXY)
    return ["haproxy", "-db", "-f", str(path)]


def socat(_: Path) -> list[str]:
    # Half a minute, not half a second, for the other direction after a half-close.
    return ["socat", "-t30", f"TCP4-LISTEN:{LISTENS},fork,reuseaddr,backlog=512", f"TCP4:127.0.0.1:{TARGET}"]


RELAYS: dict[str, Callable[[Path], list[str]]] = {
    "haproxy": haproxy,
    "envoy": lambda directory: envoy(("127.0.0.1", TARGET), directory / "envoy.json"),
    "socat": socat,
}


@contextmanager
def running(host: Namespace, command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command_inside(host, command), stderr=subprocess.DEVNULL)
    try:
        assert eventually(lambda: LISTENS in listening_ports(host)), f"{command[0]} does not listen"
        yield
    finally:
        process.terminate()
        process.wait()


def listener() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", TARGET))
    made.listen()
    return made


def client() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    made.connect(("127.0.0.1", LISTENS))
    return made


def exchange(ends: tuple[socket.socket, socket.socket], size: int) -> bool:
    """Whether each end read what the other wrote."""
    read = [0, 0]

    def write(end: socket.socket) -> None:
        try:
            end.sendall(bytes(size))
            end.shutdown(socket.SHUT_WR)
        except OSError:  # the relay has given the connection up: its reader tells
            pass

    def take(index: int) -> None:
        time.sleep(LATE_S[index])
        try:
            while piece := ends[index].recv(65_536):
                read[index] += len(piece)
        except ConnectionResetError:
            pass

    threads = [threading.Thread(target=write, args=(end,)) for end in ends]
    threads += [threading.Thread(target=take, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return read == [size, size]


def losses(host: Namespace, listening: socket.socket, size: int, count: int) -> int:
    lost = 0
    for _ in range(count):
        with call_inside(host, client) as near, listening.accept()[0] as far:
            near.settimeout(10)  # one that blocks would get EAGAIN where it is joined
            far.settimeout(10)
            lost += not exchange((near, far), size)
    return lost


def measure(relay: str, size: int, connections: int) -> tuple[int, int]:
    """Connections that lost bytes: over TCP, joined."""
    lost = [0, 0]
    with (
        temporary("half-closes") as host,
        tempfile.TemporaryDirectory() as directory,
        running(host, RELAYS[relay](Path(directory))),
        call_inside(host, listener) as listening,
    ):
        told = Rules(BypassScope(joins="all"), netns=identify(host).cookie or 0)
        for _ in range(ROUNDS):
            for joined in range(2):
                with attached(told) if joined else nullcontext():
                    lost[joined] += losses(host, listening, size, connections // ROUNDS)
    return lost[0], lost[1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=40, help="of each relay and size, each way")
    given = parser.parse_args()
    if missing := [name for name in ("haproxy", "socat") if not shutil.which(name)]:
        print(f"{' and '.join(missing)} not found. Next: run `scripts/setup.sh bench`.", file=sys.stderr)
        return 1
    version = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
    print(f"HAProxy {version}; connections of {given.connections} that lost bytes\n")
    print("| relay | each way | over TCP | joined |\n|---|---|---|---|")
    for relay in RELAYS:
        for size in SIZES:
            tcp, joined = measure(relay, size, given.connections)
            print(f"| {relay} | {size // 1000} kB | {tcp} | {joined} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
