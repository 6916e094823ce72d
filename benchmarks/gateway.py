"""The gateway beside HAProxy (`mode tcp` with splice), nginx stream and socat: one thread each, in one run.

Every repetition measures all of them, in another order each time, on a loopback of their own: the proxy on one
processor, the loads on another. A figure is the median over the repetitions; a ratio is that of the same repetition
to HAProxy's, median and range. Needs root, two processors, and what `scripts/setup.sh bench` installs.

The congestion control is the same for all, reno unless told otherwise: what is to be measured is the proxies, not the
timers with which bbr paces each segment (docs/gateway.md has both).

    python -m benchmarks.gateway [--repetitions 5] [--congestion reno] [--only ackward,haproxy]
        [throughput connections latency memory setup splice workers workers-gbits]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ackward.kernel import sysctl
from ackward.kernel.namespaces import Namespace, command_inside, temporary
from ackward.kernel.sockets import listening_ports
from benchmarks import gateway_proxies as proxies
from benchmarks.gateway_proxies import LOAD_CPU, PROXY_CPU, Proxy, pinned

SOURCE, ECHO, HTTP = 7100, 7101, 7102
#: Figure -> unit, whether more is better, and how a value is shown.
Figures = dict[str, float]
LESS_IS_BETTER = ("CPU", "latency", "memory", "setup")


def choose_congestion(host: Namespace, name: str) -> None:
    sysctl.write(host, "net.ipv4.tcp_congestion_control", name)


@contextmanager
def load(host: Namespace, role: str, *numbers: object) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "benchmarks.gateway_load", role, *map(str, numbers)]
    process = pinned(host, LOAD_CPU, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode()


def busy_seconds(*processors: str) -> float:
    """Time that these were not idle since the start (proc(5), /proc/stat): also what timers and interrupts took."""
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.removeprefix("cpu") in processors:
            user, nice, system, _idle, _waiting, irq, softirq, *_ = map(int, fields)
            total += user + nice + system + irq + softirq
    return total / os.sysconf("SC_CLK_TCK")


def throughput(host: Namespace, proxy: Proxy, numbers: tuple[int, ...] = (1, 16, 256)) -> Figures:
    """Gb/s, and by number of flows the time of the proxy's process, and of all that its processor did."""
    found = {}
    for flows in numbers:
        with load(host, "drain", proxy.port, flows, 1.5) as sink:
            assert told(sink) == "counting\n"
            before, busy = proxy.cpu_seconds(), busy_seconds(PROXY_CPU)
            seen = json.loads(told(sink))
            spent, busy = proxy.cpu_seconds() - before, busy_seconds(PROXY_CPU) - busy
        found[f"Gb/s, {flows} flows"] = seen["bytes"] * 8e-9 / seen["seconds"]
        found[f"CPU s/GB, {flows} flows"] = spent / (seen["bytes"] / 1e9)
        found[f"CPU s/GB, {flows} flows, all of the processor"] = busy / (seen["bytes"] / 1e9)
    return found


def connections(host: Namespace, proxy: Proxy) -> Figures:
    """New connections: by second, and by second of the proxy's processor."""
    argv = ["wrk", "-t1", "-c32", "-d2", "-H", "Connection: close", f"http://127.0.0.1:{proxy.port}/"]
    before = proxy.cpu_seconds()
    done = subprocess.run(
        command_inside(host, ["taskset", "-c", LOAD_CPU, *argv]), capture_output=True, text=True, check=True
    )
    spent = proxy.cpu_seconds() - before
    made = next(int(line.split()[0]) for line in done.stdout.splitlines() if " requests in " in line)
    return {"connections/s": made / 2, "connections per CPU s": made / spent}


def latency(host: Namespace, proxy: Proxy) -> Figures:
    """A 64 byte turn over one of so many connections, microseconds, less what it takes without a proxy."""
    found = {}
    for number in (1, 100, 1000):
        seen = {}
        for name, port in (("with", proxy.port), ("without", ECHO)):
            with load(host, "turns", port, number, 3000) as client:
                seen[name] = json.loads(told(client))
        for share in ("p50", "p99"):
            found[f"latency us {share}, {number} connections"] = (
                seen["with"][share] - seen["without"][share]
            ) / 1e3
    return found


def memory(host: Namespace, proxy: Proxy) -> Figures:
    """Of the proxy's processes for a connection that rests."""
    number = 2000
    with load(host, "turns", proxy.port, 50, 100) as client:
        told(client)
    before = proxy.memory()
    with load(host, "idle", proxy.port, number) as client:
        assert told(client) == "resting\n"
        return {"memory kB per idle connection": (proxy.memory() - before) / number / 1e3}


def setup(host: Namespace, proxy: Proxy, *, count: int = 6000, at_once: int = 1) -> Figures:
    """From connect() to the first answer over two proxies, legs pooled where there is a pool."""
    with load(host, "setup", proxy.port, count, at_once) as client:
        seen = json.loads(told(client))
    return {f"setup us {name}": seen[name] / 1e3 for name in ("p50", "p99", "p999")}


def shared(host: Namespace, proxy: Proxy) -> Figures:
    """Gb/s of one gateway that shares both processors with the loads."""
    return throughput(host, proxy, (64,))


Section = tuple[Callable[[Namespace, Proxy], Figures], dict[str, Callable[..., object]], int]
SPLICE = {
    "ackward": proxies.ackward,
    "ackward, copying": partial(proxies.ackward, splice=False),
    "haproxy": proxies.haproxy,
}
#: They and the loads share both processors: what a second worker can add is what these two leave idle.
WORKERS = {
    "1 worker": partial(proxies.on_both, workers=1),
    "2 workers": partial(proxies.on_both, workers=2),
}
SECTIONS: dict[str, Section] = {
    "throughput": (throughput, proxies.PROXIES, SOURCE),
    "connections": (connections, proxies.PROXIES, HTTP),
    "latency": (latency, {name: proxies.PROXIES[name] for name in ("ackward", "haproxy", "nginx")}, ECHO),
    "memory": (memory, {name: proxies.PROXIES[name] for name in ("ackward", "haproxy", "nginx")}, ECHO),
    "setup": (setup, proxies.PAIRS, ECHO),
    "splice": (throughput, SPLICE, SOURCE),
    "workers": (connections, WORKERS, HTTP),
    "workers-gbits": (shared, WORKERS, SOURCE),
}


def run(
    name: str, section: Section, host: Namespace, directory: Path, repetitions: int, only: set[str]
) -> None:
    measure, contestants, target = section
    contestants = {name: one for name, one in contestants.items() if not only or name in only}
    rival = "haproxy" if "haproxy" in contestants else next(iter(contestants))
    seen: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(repetitions):
        figures: dict[str, Figures] = {}
        for number, contestant in enumerate(random.sample(list(contestants), len(contestants))):
            with contestants[contestant](host, directory, 7200 + 10 * number, target) as proxy:  # type: ignore[attr-defined]
                figures[contestant] = measure(host, proxy)
        for contestant, values in figures.items():
            for figure, value in values.items():
                seen[figure].append({"proxy": contestant, "value": value, "rival": figures[rival][figure]})  # type: ignore[dict-item]
    print(f"\n{name}: {measure.__doc__}")
    for figure, values in seen.items():
        better = "less is better" if figure.startswith(LESS_IS_BETTER) else "more is better"
        print(f"  {figure} ({better})")
        for contestant in contestants:
            mine = [one for one in values if one["proxy"] == contestant]
            ratios = sorted(one["value"] / one["rival"] for one in mine)
            print(
                f"    {contestant:<18} {statistics.median(one['value'] for one in mine):>12,.2f}"
                f"   {statistics.median(ratios):>6.2f}x of {rival} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--congestion", default="reno")
    parser.add_argument("--only", default="", help="the proxies to compare, by name; all if not given")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    if lacking := proxies.missing():
        raise SystemExit(f"install first: {', '.join(lacking)}")
    with temporary("bench") as host, tempfile.TemporaryDirectory(prefix="ackward-bench-") as directory:
        choose_congestion(host, options.congestion)
        http = Path(directory) / "http.cfg"
        http.write_text(proxies.HTTP.format(port=HTTP, body="x" * 1000))
        origin = pinned(host, LOAD_CPU, ["haproxy", "-db", "-f", str(http)], stderr=subprocess.DEVNULL)
        try:
            while HTTP not in listening_ports(host):
                time.sleep(0.02)
            with load(host, "source", SOURCE) as source, load(host, "echo", ECHO) as echo:
                assert told(source) == told(echo) == "ready\n"
                for section in options.sections or SECTIONS:
                    run(section, SECTIONS[section], host, Path(directory), options.repetitions, only)
        finally:
            origin.terminate()
            origin.wait()


if __name__ == "__main__":
    main()
