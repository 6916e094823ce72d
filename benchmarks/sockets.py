"""What looking at ten thousand connections costs, beside `ss` that asks for about as much (`ss -tionemp`).

    python benchmarks/sockets.py

Both run as whole commands, in turns, over real connections in a namespace of their own; medians and their spread.
"""

from __future__ import annotations

import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ackward.kernel.namespaces import Namespace, call_inside, command_inside, temporary

CONNECTIONS = 5_000  # each has both ends here
ROUNDS = 7
ACKWARD = str(Path(sys.executable).with_name("ackward"))


def connections() -> list[socket.socket]:
    """So many connections over the loopback, both ends in this process."""
    ends: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(CONNECTIONS):
            ends += [socket.create_connection(listener.getsockname()), listener.accept()[0]]
    return ends


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def commands(host: Namespace) -> dict[str, Callable[[], list[str]]]:
    return {
        "ss -tionemp": lambda: command_inside(host, ["ss", "-tionemp"]),
        "ackward sockets --json": lambda: [ACKWARD, "sockets", "--netns", host.name, "--json"],
        "ackward sockets": lambda: [ACKWARD, "sockets", "--netns", host.name],
    }


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with temporary("bench-sockets") as host:
        ends = call_inside(host, connections)
        for routing in ("destinations only", "a rule by port"):
            if routing != "destinations only":
                rule = [
                    "ip",
                    "-n",
                    host.name,
                    "rule",
                    "add",
                    "ipproto",
                    "tcp",
                    "sport",
                    "7301",
                    "lookup",
                    "7301",
                ]
                subprocess.run(rule, check=True)
            times: dict[str, list[float]] = {name: [] for name in commands(host)}
            for _ in range(ROUNDS):
                for name, command in commands(host).items():
                    times[name].append(seconds(command()))
            base = statistics.median(times["ss -tionemp"])
            print(f"{len(ends):,} sockets, routing by {routing}")
            for name, taken in times.items():
                median = statistics.median(taken)
                print(
                    f"  {name:24} {median:5.2f} s ({min(taken):.2f} to {max(taken):.2f}), {median / base:.1f}x of ss"
                )
        for end in ends:
            end.close()


if __name__ == "__main__":
    main()
