"""What each remedy costs: the 2x2 of Nagle's algorithm and delayed ACKs, and initcwnd over a long link.

Two hosts (network namespaces), on one wire unless told otherwise. The client's Nagle is on; `fix nodelay` turns it off
there, `fix quickack` lets the server acknowledge at once. Each repetition measures the four cells of a load one after the
other in random order, each on a new connection; the remedies are applied while it is open:
  split     a request in two writes of 100 and 200 bytes, an answer of 100
  whole     the same bytes in one write
  haproxy   `split` as HTTP through a real HAProxy that waits for bodies (lab/proxied.py says why)
  far       `split` over a link of 40 ms round trip
  stream    500 writes of 100 bytes, one after the other, then an answer
  bulk      1 MiB to the server in writes of 64 KiB; it receives many segments at once, as with GRO
  packets   the same; it receives each segment by itself, as without GRO
A figure is the median of the repetitions, a ratio that of the paired repetitions with its quartiles. Packets are the
segments of the client's own connection as TCP counts them (TCP_INFO). CPU is that of the programs at both ends, with the
softirqs that run in their time and in ksoftirqd. `split`, `whole` and `haproxy` run on one processor,
the others on two. Needs root and haproxy.

    python -m benchmarks.remedies [--pairs 7] [--seconds 1.5] [--json FILE] [--picture FILE]
    python -m benchmarks.remedies --from FILE [--picture FILE]      tables and picture of an earlier run
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from tests.kernel.bpf_file_system import bpf_file_system

from ackward import remedies
from ackward.kernel.counters import CounterFiles
from ackward.kernel.namespaces import Namespace, command_inside
from ackward.kernel.sock_diag import TcpState, dump
from ackward.lab.peer import Shape
from ackward.lab.run import server
from ackward.lab.topology import DEVICE, TwoHosts, run_on, set_sysctls, two_hosts
from ackward.lab.wan import Line, Wan
from ackward.loop import fixing
from ackward.model.plan import Plan
from ackward.remedies.receipts import Receipts
from benchmarks.remedies_shown import Figures, Found, picture, show_cells, show_windows

#: The client half: for each line `SECONDS LEAST` it asks so long and so often, and tells the rounds' times and its CPU time.
ASKING = """
import json, sys, time
from ackward.lab.peer import Shape, load
rounds = load(sys.argv[1], Shape.from_json(sys.argv[2]))
for line in sys.stdin:
    seconds, least = map(float, line.split())
    taken, began, cpu = [], time.monotonic(), time.process_time_ns()
    while len(taken) < least or time.monotonic() - began < seconds:
        taken.append(next(rounds))
    cpu = time.process_time_ns() - cpu
    print(json.dumps({"rounds": taken, "seconds": time.monotonic() - began, "cpu_ns": cpu}), flush=True)
"""
ENDLESS = 10**9
#: Rounds before anything is measured: a new connection acknowledges its first segments at once.
WARM_UP = 3
LEAST = 3
#: Ethernet, IPv4 and TCP headers with timestamps (RFC 894, RFC 9293, RFC 7323), bytes a segment.
HEADERS = 14 + 20 + 20 + 12

CELLS: dict[str, tuple[str, ...]] = {
    "neither": (),
    "nodelay": ("nodelay",),
    "quickack": ("quickack",),
    "both": ("nodelay", "quickack"),
}
SPLIT = Shape(rounds=ENDLESS)
#: Cubic does not pace: pacing sends packet by packet whoever acknowledges.
BULK = replace(SPLIT, pings=16, sizes=(65536,), congestion="cubic")
LONG = Wan.of(20)
LOADS: dict[str, Shape] = {
    "split": SPLIT,
    "whole": replace(SPLIT, pings=1, sizes=(300,)),
    "haproxy": replace(SPLIT, http=True),
    "far": SPLIT,
    "stream": replace(SPLIT, pings=500, sizes=(100,)),
    "bulk": BULK,
    "packets": BULK,
}
#: A wake-up on another processor costs what that one's sleep state happens to be, which drowns what a packet costs.
ON_ONE = ("split", "whole", "haproxy")
FRESH = replace(SPLIT, nagle=False, answer=100_000, reconnect=True, congestion="cubic")
NEIGHBOUR = Shape(nagle=False, answer=1000, rest=20, rounds=ENDLESS, port=7010, congestion="cubic")
RESTED = replace(SPLIT, nagle=False, answer=60_000, rest=1000, congestion="cubic")


class Asking:
    """A client half that runs; it asks when it is told to."""

    def __init__(self, hosts: TwoHosts, shape: Shape) -> None:
        argv = [sys.executable, "-c", ASKING, hosts.server_address(4), shape.to_json()]
        self._process = subprocess.Popen(
            command_inside(hosts.client, argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, seconds: float, least: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds} {least}\n")
        self._process.stdin.flush()

    def end(self) -> tuple[list[int], float, int]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the load ended early (its words are above)")
        told = json.loads(line)
        return sorted(told["rounds"]), told["seconds"], told["cpu_ns"]

    def ask(self, seconds: float, least: int) -> tuple[list[int], float, int]:
        self.begin(seconds, least)
        return self.end()


@contextmanager
def applied(plans: Sequence[Plan], store: Receipts) -> Iterator[None]:
    with ExitStack() as stack:
        for plan in plans:
            remedy = remedies.load(plan.remedy)
            receipt = remedy.apply(plan, store)
            assert receipt is not None, f"{plan.remedy} was in force already"
            stack.callback(remedy.undo, receipt, store)
        yield


def plans_of(cell: str, hosts: TwoHosts, port: int) -> list[Plan]:
    make: dict[str, Callable[[], Plan]] = {
        "nodelay": lambda: fixing.plan_nodelay(netns=hosts.client.name, port=port),
        "quickack": lambda: fixing.plan_quickack(netns=hosts.server.name, port=port),
    }
    return [make[name]() for name in CELLS[cell]]


def cpu_ns(host: Namespace) -> int:
    """The processor time of all processes in ``host`` and of ksoftirqd, threads that ended included."""
    total = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            inside = (process / "ns/net").stat().st_ino == host.inode
            if inside or (process / "comm").read_text().startswith("ksoftirqd/"):
                # clock_getcpuclockid(3): CPUCLOCK_SCHED of a process (include/linux/posix-timers_types.h).
                total += time.clock_gettime_ns(~int(process.name) << 3 | 2)
        except OSError:
            continue  # ended
    return total


def sockets(host: Namespace, port: int) -> dict[str, int]:
    """TCP_INFO of the connection to or from ``port``; there is one."""
    found = [one for one in dump(host, [TcpState.ESTABLISHED]) if port in (one.local[1], one.remote[1])]
    assert len(found) == 1, found
    return found[0].info


def at(values: Sequence[int], share: float) -> int:
    """The value that ``share`` of the sorted ``values`` do not exceed."""
    return values[max(0, math.ceil(len(values) * share) - 1)]


def measured(hosts: TwoHosts, shape: Shape, cell: str, seconds: float, store: Receipts) -> Figures:
    """One cell of the 2x2, once."""
    with Asking(hosts, shape) as asking:
        asking.ask(0, 1)  # the connection is open
        with applied(plans_of(cell, hosts, shape.port), store):
            asking.ask(0, WARM_UP)
            before = [sockets(host, shape.port) for host in (hosts.client, hosts.server)]
            server_cpu = cpu_ns(hosts.server)
            rounds, elapsed, client_cpu = asking.ask(seconds, LEAST)
            server_cpu = cpu_ns(hosts.server) - server_cpu
            after = [sockets(host, shape.port) for host in (hosts.client, hosts.server)]
    client, answering = (
        {name: (now[name] - then[name]) / len(rounds) for name in now}
        for then, now in zip(before, after, strict=True)
    )
    segments = client["segs_out"] + client["segs_in"]
    return {
        "rounds": len(rounds),
        "p50_ns": at(rounds, 0.5),
        "p99_ns": at(rounds, 0.99),
        "rounds_a_second": len(rounds) / elapsed,
        "data_out": client["data_segs_out"],
        "data_in": client["data_segs_in"],
        "acks_out": client["segs_out"] - client["data_segs_out"],
        "acks_in": client["segs_in"] - client["data_segs_in"],
        "bytes": client["bytes_sent"] + client["bytes_received"] + segments * HEADERS,
        "cpu_ns": (client_cpu + server_cpu) / len(rounds),
        "retransmitted": client["total_retrans"] + answering["total_retrans"],
    }


def measured_afresh(hosts: TwoHosts, asking: Asking, seconds: float) -> Figures:
    """Answers over the long link, while somebody else's small requests share it."""
    with Asking(hosts, NEIGHBOUR) as other, CounterFiles(hosts.server) as counters:
        for load in (asking, other):
            load.ask(0, 1)
        before, theirs = counters.read(), sockets(hosts.server, NEIGHBOUR.port)
        other.begin(seconds, LEAST)
        rounds, _, _ = asking.ask(seconds, LEAST)
        beside, _, _ = other.end()
        after, theirs_after = counters.read(), sockets(hosts.server, NEIGHBOUR.port)
    sent = after.data_sent - before.data_sent - (theirs_after["data_segs_out"] - theirs["data_segs_out"])
    again = (
        after.retransmitted - before.retransmitted - (theirs_after["total_retrans"] - theirs["total_retrans"])
    )
    return {
        "p50_ns": at(rounds, 0.5),
        "data": sent / len(rounds),
        "retransmitted": again / len(rounds),
        "beside_p50_ns": at(beside, 0.5),
        "beside_p99_ns": at(beside, 0.99),
    }


def measured_rested(asking: Asking, seconds: float) -> Figures:
    asking.ask(0, 1)  # a fresh connection: its window has not grown yet
    return {"p50_ns": at(asking.ask(seconds, LEAST)[0], 0.5)}


@dataclass(frozen=True)
class Windowed:
    """A setting of initcwnd: 0 segments is what the kernel does by itself."""

    segments: int
    after_idle: bool = False

    def plans(self, hosts: TwoHosts) -> list[Plan]:
        if not self.segments:
            return []
        to = f"{hosts.client_address(4)}/32"
        return [
            fixing.plan_initcwnd(
                segments=self.segments, netns=hosts.server.name, to=to, after_idle=self.after_idle
            )
        ]

    @property
    def words(self) -> str:
        if not self.segments:
            return "none (10 segments)"
        return f"`--segments {self.segments}{' --after-idle' * self.after_idle}`"


#: Name -> the link (its bottleneck's buffer in kB, 0 for none), the load and the settings.
WINDOWS: dict[str, tuple[Wan, int, Shape, tuple[Windowed, ...]]] = {
    "100 kB on fresh connections, 80 ms": (Wan.of(40), 0, FRESH, (Windowed(0), Windowed(30))),
    "60 kB after rests of 1 s, 40 ms": (
        Wan.of(20), 0, RESTED, (Windowed(0), Windowed(30), Windowed(30, after_idle=True)),
    ),
    **{
        f"100 kB on fresh connections, 40 ms, 10 Mbit/s, a buffer of {buffer} kB": (
            Wan(Line(20), Line(20, rate=10)), buffer, FRESH, (Windowed(0), Windowed(30), Windowed(64)),
        )
        for buffer in (16, 64)
    },
}  # fmt: skip


def in_turns(
    name: str, modes: Sequence[str], pairs: int, once: Callable[[str], Figures]
) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {mode: [] for mode in modes}
    for number in range(pairs):
        print(f"\r{name}: {number + 1} of {pairs} ", end="", file=sys.stderr, flush=True)
        for mode in random.sample(modes, len(modes)):
            found[mode].append(once(mode))
    print(file=sys.stderr)
    return found


@contextmanager
def processors(count: int) -> Iterator[None]:
    """The processes that are started meanwhile run on so many processors at most."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def four_cells(name: str, pairs: int, seconds: float, store: Receipts) -> dict[str, list[Figures]]:
    shape = LOADS[name]
    with (
        processors(1 if name in ON_ONE else 2),
        two_hosts(LONG if name == "far" else None) as hosts,
        server(hosts, shape),
    ):
        if name == "packets":
            run_on(None, "ip", "-n", hosts.client.name, "link", "set", DEVICE, "gso_max_segs", "1")
        return in_turns(name, list(CELLS), pairs, lambda cell: measured(hosts, shape, cell, seconds, store))


def windows(pairs: int, seconds: float, store: Receipts) -> Found:
    found: Found = {}
    for name, (wan, buffer, shape, settings) in WINDOWS.items():
        with two_hosts(wan) as hosts, server(hosts, shape), server(hosts, NEIGHBOUR):
            set_sysctls(hosts.server, {"net.ipv4.tcp_slow_start_after_idle": "1"})
            if buffer:
                assert hosts.router is not None
                shaper = ("root", "tbf", "rate", "10mbit", "burst", "5kb", "limit", f"{buffer}kb")
                run_on(hosts.router, "tc", "qdisc", "replace", "dev", "near", *shaper)
            modes = {setting.words: setting for setting in settings}

            def once(
                words: str,
                hosts: TwoHosts = hosts,
                shape: Shape = shape,
                modes: Mapping[str, Windowed] = modes,
                trip_ns: float = (wan.to_server.delay + wan.to_client.delay) * 1e6,
            ) -> Figures:
                with applied(modes[words].plans(hosts), store), Asking(hosts, shape) as asking:
                    found = (
                        measured_afresh(hosts, asking, seconds)
                        if shape.reconnect
                        else measured_rested(asking, seconds)
                    )
                return found | {"round_trips": found["p50_ns"] / trip_ns}

            found[name] = in_turns(name, list(modes), pairs, once)
    return found


def machine() -> str:
    model = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": ?"
    )
    return f"Linux {platform.release()}, {os.cpu_count()} processors ({model.partition(':')[2].strip()})"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="the 2x2 as SVG")
    parser.add_argument(
        "--from", dest="earlier", type=Path, help="the JSON of an earlier run: measure nothing"
    )
    given = parser.parse_args()
    if given.earlier:
        results = json.loads(given.earlier.read_text())
    else:
        with (
            bpf_file_system(),
            tempfile.TemporaryDirectory(prefix="ackward-bench-", dir="/var/tmp") as directory,
        ):
            store = Receipts(Path(directory) / "receipts")
            results = {
                "machine": machine(),
                "pairs": given.pairs,
                "seconds": given.seconds,
                "cells": {name: four_cells(name, given.pairs, given.seconds, store) for name in LOADS},
                "windows": windows(given.pairs, given.seconds, store),
            }
    print(f"{results['machine']}; --pairs {results['pairs']} --seconds {results['seconds']:g}")
    show_cells(results["cells"])
    show_windows(results["windows"])
    if given.json:
        given.json.write_text(json.dumps(results, indent=2))
    if given.picture:
        given.picture.write_text(picture(results["cells"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
