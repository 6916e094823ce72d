"""What the bypass gains and costs: paired and interleaved, with the processor time of both ends beside it.

Two hosts (network namespaces) on one wire, or one host that talks to itself (--within). Each repetition measures every mode in
random order, on new connections, after a few short runs of the same load:
  tcp        no bypass
  beside     a bypass for another namespace: what everybody else on the host pays
  joined     a bypass that joins all connections
  learned    a bypass that joins those that profit, as `ackward fix bypass` does: the short runs have shown it
  upstream   an object of the document's shape (intel/istio-tcpip-bypass): --rival OBJECT, or upstream.bpf.c beside this file
  unix, pipe (`ask` only) the same rounds over a Unix socket, and over two pipes: what the calls and wake-ups alone take

Loads: request and answer of each size, one after the other (ask: both ends on one processor); writes of each size in a stream,
with Nagle's algorithm (stream) and without (nodelay; both: writer and reader on two processors); small ones of both at once
(mixed: on the same processors); then redis-benchmark -P 1, wrk and pgbench, both ends in one host, wherever the scheduler puts
them. A figure is the median of the repetitions, a ratio that of the paired repetitions with the interval that holds its median
with 95 % confidence; CPU is that of client and server. Needs root.

    python -m benchmarks.bypass [--pairs 15] [--seconds 0.1] [--only ask,stream,...] [--sizes 1,64] [--modes tcp,joined,...]
                                [--within] [--json FILE] [--rival OBJECT]
    python -m benchmarks.bypass --from FILE ...      the tables of earlier runs, in Markdown
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hatch_build import HEADERS
from tests.kernel.bypass_load import PORT, Done, Load, compiled, serving
from tests.kernel.steering_hosts import cgroup, moved_into

from ackward.kernel import sock_maps
from ackward.kernel.libbpf import Object
from ackward.kernel.namespaces import Namespace, temporary
from ackward.lab.local_servers import SERVERS
from ackward.lab.topology import TwoHosts, two_hosts
from ackward.model.scopes import BypassScope
from ackward.remedies.bypass import engine
from ackward.remedies.bypass.rules import MOST_BYTES, Rules
from ackward.remedies.transaction import identify
from benchmarks.bypass_shown import Figures, Found, show
from benchmarks.remedies import cpu_ns

MODES = ("tcp", "beside", "joined", "learned", "upstream")
#: Between two processes, without a network.
WITHIN = ("unix", "pipe")
SIZES = (1, 16, 64, 256, 1024, 4096, 16384, 65536)
MIXED_SIZE = 64
LOOPBACK = "127.0.0.1"
#: Short runs of the same load before each measurement, new connections each, from which `learned` learns.
LESSONS = 4
LESSON_SECONDS = 0.01


@dataclass
class Place:
    """Where it all happens; everything of the benchmark is in the cgroup."""

    hosts: TwoHosts
    other: Namespace
    cgroup: Path
    rival: Path
    bound: int
    address: str


def rules(host: Namespace, *, joins: str = "all", bound: int = MOST_BYTES) -> Rules:
    cookie = identify(host).cookie
    assert cookie is not None
    return Rules(BypassScope(joins=joins), netns=cookie, most_bytes=bound)


@contextmanager
def mode(name: str, place: Place) -> Iterator[None]:
    """The host in that mode."""
    if name == "tcp":
        yield
    elif name == "upstream":
        with upstream(place):
            yield
    else:
        told = {
            "beside": rules(place.other),
            "joined": rules(place.hosts.server, bound=place.bound),
            "learned": rules(place.hosts.server, joins="learned", bound=place.bound),
        }[name]
        with engine.attached(told):
            yield


@contextmanager
def upstream(place: Place) -> Iterator[None]:
    with Object(place.rival, purpose="there is nothing to compare with") as programs:
        programs.load()
        sock_maps.attach(
            programs.program_fd("redirect"), programs.map("sockets").fd, sock_maps.SK_MSG_VERDICT
        )
        programs.attach_cgroup("established", place.cgroup)
        yield


def in_turns(
    pairs: int,
    modes: Sequence[str],
    place: Place,
    run: Callable[[float], Figures],
    seconds: float,
    lessons: int = LESSONS,
    within: Callable[[str], Figures] | None = None,
) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {name: [] for name in modes}
    for _ in range(pairs):
        for name in random.sample(list(modes), len(modes)):
            if within and name in WITHIN:
                found[name].append(within(name))
                continue
            with mode(name, place):
                for _ in range(lessons):
                    run(LESSON_SECONDS)
                found[name].append(run(seconds))
    return found


def processor_ns(host: Namespace) -> float:
    """Of the servers in ``host``, and of all loads that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return cpu_ns(host) + (ended.ru_utime + ended.ru_stime) * 1e9


@contextmanager
def on_processor(number: int) -> Iterator[None]:
    """This thread, and what it starts, on that processor."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[number]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def asked(load: Load, place: Place, size: int, seconds: float) -> Figures:
    with on_processor(0):
        return rounds_of(load.client(place.hosts.client, "ask", place.address, size, seconds))


def asked_within(way: str, load: Load, size: int, seconds: float) -> Figures:
    with on_processor(0):
        return rounds_of(load.within(way, size, seconds))


def rounds_of(done: Done) -> Figures:
    rounds, elapsed, p50, p99, _ = done.numbers
    return {
        "p50_ns": p50,
        "p99_ns": p99,
        "a_second": rounds / elapsed,
        "cpu_ns": done.cpu_seconds * 1e9 / rounds,
    }


def streamed(load: Load, place: Place, size: int, seconds: float, *options: str) -> Figures:
    with on_processor(1):
        done = load.client(place.hosts.client, "stream", place.address, size, seconds, *options)
    octets, elapsed = done.numbers
    return {"bits": octets * 8 / elapsed, "cpu_ns": done.cpu_seconds * 1e9 / (octets / size)}


def undelayed(load: Load, place: Place, size: int, seconds: float) -> Figures:
    """Without Nagle's algorithm, which gathers small writes."""
    return streamed(load, place, size, seconds, "nodelay")


def mixed(loads: Mapping[str, Load], place: Place, seconds: float) -> Figures:
    """Two services at once, a connection each: they share two processors."""
    found: dict[str, Figures] = {}
    parts: Mapping[str, Callable[..., Figures]] = {"ask": asked, "stream": streamed}
    threads = [
        threading.Thread(
            target=lambda name=name, part=part: found.__setitem__(
                name, part(loads[name], place, MIXED_SIZE, seconds)
            )
        )
        for name, part in parts.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "a_second": found["ask"]["a_second"],
        "p50_ns": found["ask"]["p50_ns"],
        "bits": found["stream"]["bits"],
    }


def measured(place: Place, program: Path, given: argparse.Namespace, only: Sequence[str]) -> dict[str, Found]:
    results: dict[str, Found] = {}
    with ExitStack() as stack:
        with on_processor(0):
            load = stack.enter_context(serving(place.hosts.server, program, 8))
        for kind, run in (("ask", asked), ("stream", streamed), ("nodelay", undelayed)):
            if kind in only:
                results[kind] = {}
                for size in map(int, given.sizes.split(",")):
                    say(f"{kind}, {size} bytes")
                    results[kind][str(size)] = in_turns(
                        given.pairs,
                        [*given.modes.split(","), *(WITHIN if kind == "ask" else ())],
                        place,
                        lambda seconds, size=size, run=run: run(load, place, size, seconds),
                        given.seconds,
                        within=lambda way, size=size: asked_within(way, load, size, given.seconds),
                    )
    if "mixed" in only:
        say("mixed")
        with ExitStack() as stack:
            with on_processor(0):
                loads = {
                    name: stack.enter_context(serving(place.hosts.server, program, 8, PORT + number))
                    for number, name in enumerate(("ask", "stream"))
                }
            results["mixed"] = {
                str(MIXED_SIZE): in_turns(
                    given.pairs,
                    given.modes.split(","),
                    place,
                    lambda seconds: mixed(loads, place, seconds),
                    given.seconds,
                )
            }
    for server in SERVERS:
        if server.name not in only:
            continue
        say(server.name)
        with server.running(place.hosts.server):

            def run(seconds: float, server=server) -> Figures:
                seconds = max(1.0, seconds)
                before = processor_ns(place.hosts.server)
                load = server.load(place.hosts.server, server.port, seconds)
                assert load.failed == 0, f"{server.name}: {load.failed} requests failed"
                taken = processor_ns(place.hosts.server) - before
                return {"a_second": load.per_second, "cpu_ns": taken / load.requests}

            run(1)  # makes what the load needs (pgbench: its tables)
            # One lesson: these loads have many connections, and take a second at least.
            results.setdefault("servers", {})[server.name] = in_turns(
                given.pairs,
                ("tcp", "joined", "learned", "upstream"),
                place,
                run,
                max(1.0, given.seconds),
                lessons=1,
            )
    return results


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def machine() -> str:
    model = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": ?"
    )
    return f"Linux {platform.release()}, {os.cpu_count()} processors ({model.partition(':')[2].strip()})"


def compiled_rival(directory: Path) -> Path:
    """The object beside this file, compiled as the build does it."""
    target = directory / "upstream.bpf.o"
    clang = shutil.which("clang")
    assert clang is not None, "clang is not installed"
    includes = [f"-I{HEADERS}", f"-I/usr/include/{platform.machine()}-linux-gnu"]
    source = Path(__file__).with_name("upstream.bpf.c")
    flags = ["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror"]
    subprocess.run([clang, *flags, *includes, "-c", str(source), "-o", str(target)], check=True)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--only", default="ask,stream,nodelay,mixed,nginx,redis,postgresql")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="of messages, bytes")
    parser.add_argument("--modes", default=",".join(MODES), help="`tcp` must be one of them")
    parser.add_argument("--within", action="store_true", help="both ends in one namespace, over its loopback")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--bound", type=int, default=MOST_BYTES, help="bytes that may wait in a reader's queue"
    )
    parser.add_argument(
        "--rival", type=Path, help="a compiled object with `established`, `redirect`, `sockets`"
    )
    parser.add_argument(
        "--from", dest="earlier", type=Path, nargs="+", help="the JSON of earlier runs: measure nothing"
    )
    given = parser.parse_args()
    if given.earlier:
        runs = [json.loads(path.read_text()) for path in given.earlier]
    else:
        told = {
            "machine": machine(),
            "pairs": given.pairs,
            "seconds": given.seconds,
            "within": given.within,
        }
        with (
            tempfile.TemporaryDirectory(prefix="ackward-bench-", dir="/var/tmp") as name,
            cgroup() as group,
            two_hosts() as hosts,
            temporary("other") as other,
            moved_into(group),
        ):
            directory = Path(name)
            if given.within:
                hosts = TwoHosts(hosts.server, hosts.server)
            place = Place(
                hosts,
                other,
                group,
                given.rival or compiled_rival(directory),
                given.bound,
                LOOPBACK if given.within else hosts.server_address(4),
            )
            told["results"] = measured(place, compiled(directory), given, given.only.split(","))
        if given.json:
            given.json.write_text(json.dumps(told, indent=1))
        runs = [told]
    for told in runs:
        within = " --within" if told["within"] else ""
        print(f"\n{told['machine']}; --pairs {told['pairs']} --seconds {told['seconds']:g}{within}")
        show(told["results"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
