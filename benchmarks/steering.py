"""What a steering hook costs whom: setsockopt(), socket(), and a loopback connection, in its scope and beside it.

Each repetition runs all modes in random order; the figure is the difference to `off` of the same repetition: median, and the
quartiles as its spread.
  off       no hook
  beside    a hook for another namespace: what everybody on the host pays
  port      a hook for all ports of the load's namespace
  process   a hook for the process that is the load
Needs root.

    python -m benchmarks.steering [--pairs 15]
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.bpf_file_system import bpf_file_system

from ackward import remedies
from ackward.kernel.background import start_time_of
from ackward.kernel.namespaces import Namespace, call_inside, temporary
from ackward.model.plan import Plan
from ackward.model.scopes import SocketScope
from ackward.remedies.receipts import Receipts

NODELAY = remedies.load("nodelay")
MODES = ("off", "beside", "port", "process")


@contextmanager
def hooked(mode: str, load: Namespace, other: Namespace, store: Receipts) -> Iterator[None]:
    if mode == "off":
        yield
        return
    scope = SocketScope(ports=(1, 65535))
    if mode == "process":
        scope = SocketScope(pid=os.getpid(), start_time=start_time_of(os.getpid()))
    plan = NODELAY.plan(other if mode == "beside" else load, scope)
    assert isinstance(plan, Plan), plan
    receipt = NODELAY.apply(plan, store)
    assert receipt is not None
    try:
        yield
    finally:
        NODELAY.undo(receipt, store)


def per_call(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - start) / count


def measured() -> dict[str, float]:
    """Nanoseconds a call; a connection is both of its ends, made and closed."""
    with socket.socket() as one, socket.create_server(("127.0.0.1", 0)) as listener:

        def connect() -> None:
            with socket.create_connection(listener.getsockname()), listener.accept()[0]:
                pass

        return {
            "setsockopt()": per_call(
                lambda: one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), 20_000
            ),
            "socket() and close()": per_call(lambda: socket.socket().close(), 4_000),
            "connection, both ends": per_call(connect, 1_000),
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    found: dict[tuple[str, str], list[float]] = {}
    with (
        bpf_file_system(),
        temporary("load") as load,
        temporary("other") as other,
        tempfile.TemporaryDirectory() as directory,
    ):
        store = Receipts(Path(directory) / "receipts")
        for _ in range(pairs):
            results = {}
            for mode in random.sample(MODES, len(MODES)):
                with hooked(mode, load, other, store):
                    results[mode] = call_inside(load, measured)
            for mode, calls in results.items():
                for call, cost in calls.items():
                    found.setdefault((call, mode), []).append(
                        cost - (results["off"][call] if mode != "off" else 0)
                    )
    print(f"{'':24}{'off':>10}" + "".join(f"{mode:>26}" for mode in MODES[1:]))
    for call in dict.fromkeys(call for call, _ in found):
        line = f"{call:24}{statistics.median(found[call, 'off']) / 1e3:7.2f} us"
        for mode in MODES[1:]:
            low, middle, high = statistics.quantiles(found[call, mode], n=4)
            line += f"{middle / 1e3:+12.2f} ({low / 1e3:+.2f} {high / 1e3:+.2f})".rjust(26)
        print(line)


if __name__ == "__main__":
    main()
