"""Requests a second of nginx under wrk, joined by the bypass and over TCP, by how many connections wrk keeps open.

    python -m benchmarks.bypass_connections [--pairs 5] [--seconds 2]

A page of 1 kB from a file, and an answer of 2 B that costs nginx next to nothing; both ends where the scheduler puts them, and on one
processor each. Turns of TCP and bypass alternate; told are the medians over TCP, and of the pairs' ratios (quartiles).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.kernel.bpf_file_system import bpf_file_system
from tests.kernel.bypass_hosts import engine

from ackward.kernel.namespaces import Namespace, temporary
from ackward.lab.local_servers import SERVERS, wrk

CONNECTIONS = (1, 2, 4, 8, 16, 64)
PAGES = {"1 kB file": "/", "2 B answer": "/short"}
NGINX = next(server for server in SERVERS if server.name == "nginx")


@contextmanager
def processors(chosen: set[int]) -> Iterator[None]:
    """What is started meanwhile runs on these."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pair(host: Namespace, connections: int, seconds: float, path: str) -> tuple[float, float]:
    tcp = wrk(host, NGINX.port, seconds, connections, path).per_second
    with engine(host):
        return tcp, wrk(host, NGINX.port, seconds, connections, path).per_second


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    given = parser.parse_args()
    first, *_, last = sorted(everywhere := os.sched_getaffinity(0))
    places = {"scheduler": (everywhere, everywhere), "one each": ({first}, {last})}
    print(f"{'page':11}{'processors':11}{'connections':>12}{'over TCP':>13}   joined / TCP")
    for page, path in PAGES.items():
        for name, (of_server, of_load) in places.items():
            with bpf_file_system(), temporary("connections") as host, ExitStack() as stack:
                with processors(of_server):
                    stack.enter_context(NGINX.running(host))
                with processors(of_load):
                    for connections in CONNECTIONS:
                        found = [pair(host, connections, given.seconds, path) for _ in range(given.pairs)]
                        say(f"{page:11}{name:11}{connections:12}", found)
    return 0


def say(row: str, found: list[tuple[float, float]]) -> None:
    low, middle, high = statistics.quantiles([joined / tcp for tcp, joined in found], n=4)
    tcp = statistics.median(tcp for tcp, _ in found)
    print(f"{row}{tcp:11,.0f}/s   {middle:.2f} ({low:.2f}-{high:.2f})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
