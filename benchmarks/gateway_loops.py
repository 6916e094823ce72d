"""Which event loop for the gateway: its own, asyncio's, uvloop: ``python -m benchmarks.gateway_loops [--seconds 2]``.

The same listeners and relays run on each; only what calls them differs. Between two ports of a loopback, one process each,
interleaved: new connections (64 at once, HTTP with ``Connection: close``), and round trips on one connection. CPU
is the relay's own, in microseconds for each. Needs root (a namespace), nginx and wrk.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ackward.gateway.connection import Connections
from ackward.gateway.counters import Counters
from ackward.gateway.listeners import Entrance
from ackward.gateway.loop import ERROR, HANGUP, PEER_DONE, READ, WRITE, Handler, Loop
from ackward.gateway.pipes import Pipes
from ackward.gateway.resources import Resources
from ackward.gateway.settings import FixedListener, Settings
from ackward.gateway.sockets import listening
from ackward.gateway.upstream import Direct
from ackward.kernel.namespaces import command_inside, temporary

LOOPS = ("own", "asyncio", "uvloop")
TARGET = 7100
NGINX = """\
daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 "{body}"; }} }}
}}
"""


class OnAsyncio(Loop):
    """The interface of the gateway's loop over asyncio's readers and writers, which tell less: not that the end came."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._asyncio = loop

    def add(self, descriptor: int, events: int, handler: Handler) -> None:
        self._handlers[descriptor] = handler
        self.want(descriptor, events)

    def want(self, descriptor: int, events: int) -> None:
        if events & (READ | PEER_DONE):
            self._asyncio.add_reader(descriptor, self._call, descriptor, READ | PEER_DONE)
        else:
            self._asyncio.remove_reader(descriptor)
        if events & WRITE:
            self._asyncio.add_writer(descriptor, self._call, descriptor, WRITE)
        else:
            self._asyncio.remove_writer(descriptor)

    def _call(self, descriptor: int, events: int) -> None:
        self.now = self._asyncio.time()
        if handler := self._handlers.get(descriptor):
            handler(events)

    def discard(self, socket) -> None:
        self.want(socket.fileno(), ERROR | HANGUP)
        self._handlers.pop(socket.fileno(), None)
        # Where several events come in one batch the number must not be given out again before its end.
        self._asyncio.call_soon(socket.close)

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self._asyncio.call_later(seconds, what)

    def run(self) -> None:
        self._asyncio.run_forever()


class Deaf:
    """Hooks of a gateway that nobody listens to."""

    def ended(self, record) -> None:
        pass

    def leg_failed(self, failure) -> None:
        pass

    def stuck(self, record) -> None:
        pass

    def turned_away(self, listener, client, why) -> None:
        pass

    def permits(self, _peer, _wanted) -> bool:
        return False

    def recount(self) -> None:
        pass


def serve(kind: str, port: int) -> None:
    """Be a relay on that loop until killed."""
    if kind == "own":
        loop = Loop()
    elif kind == "asyncio":
        loop = OnAsyncio(asyncio.new_event_loop())
    else:
        import uvloop

        loop = OnAsyncio(uvloop.new_event_loop())
    settings = Settings()
    resources = Resources(settings, Deaf(), Counters(1).row(0), loop, Pipes(settings.buffers.pipe))
    listener = FixedListener("one", ("127.0.0.1", port), ("127.0.0.1", TARGET))
    sock = listening(listener.bind, settings.limits, buffer=settings.buffers.near)
    Entrance(resources, Connections(resources), listener, sock, Direct(resources))
    print("ready", flush=True)
    loop.run()


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


@contextmanager
def running(argv: list[str], *, ready: bool = False) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        if ready:
            assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=1, help="of one load")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--serve", nargs=2, metavar=("LOOP", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], int(arguments.serve[1]))
        return
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        host = stack.enter_context(temporary("gwloops"))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = directory / "nginx.conf"
        config.write_text(NGINX.format(directory=directory, port=TARGET, body="x" * 64))
        stack.enter_context(running(command_inside(host, ["nginx", "-c", str(config)])))
        relays = {}
        for number, kind in enumerate(LOOPS):
            command = [sys.executable, "-m", "benchmarks.gateway_loops", "--serve", kind, str(7200 + number)]
            relays[kind] = stack.enter_context(running(command_inside(host, command), ready=True))
        for _ in range(arguments.rounds):
            for load, options in (
                ("connections", ["-c64", "-H", "Connection: close"]),
                ("round trips", ["-c1"]),
            ):
                for number, kind in enumerate(LOOPS):
                    before = cpu_seconds(relays[kind].pid)
                    url = f"http://127.0.0.1:{7200 + number}/"
                    wrk = ["wrk", "-t1", f"-d{arguments.seconds}", *options, url]
                    shown = subprocess.run(
                        command_inside(host, wrk), capture_output=True, text=True, check=True
                    )
                    count = int(re.search(r"(\d+) requests in", shown.stdout)[1])
                    spent = cpu_seconds(relays[kind].pid) - before
                    found.setdefault((load, kind), []).append(
                        (count / arguments.seconds, spent / count * 1e6)
                    )
    print(f"{'':12} {'loop':8} {'a second':>9} {'CPU each':>9}   spread of CPU")
    for (load, kind), values in found.items():
        cpu = [each for _, each in values]
        rate = statistics.median(rate for rate, _ in values)
        print(
            f"{load:12} {kind:8} {rate:9.0f} {statistics.median(cpu):6.1f} us   {min(cpu):.1f} - {max(cpu):.1f}"
        )


if __name__ == "__main__":
    main()
