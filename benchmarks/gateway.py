"""The gateway beside HAProxy (`mode tcp` with splice), nginx stream and socat: one thread each, in one run.

Every repetition measures all of them, in another order each time, on a loopback of their own: the proxy on one
processor, the loads on another. A figure is the median over the repetitions; a ratio is that of the same repetition
to HAProxy's, median and range. Needs root, two processors, and what `scripts/setup.sh bench` installs.

    python -m benchmarks.gateway [--repetitions 5] [throughput connections latency memory setup copying]
"""

from __future__ import annotations

import argparse
import json
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

from ackward.kernel.namespaces import Namespace, command_inside, temporary
from ackward.kernel.sockets import listening_ports
from benchmarks import gateway_proxies as proxies
from benchmarks.gateway_proxies import LOAD_CPU, Proxy, pinned

SOURCE, ECHO, HTTP = 7100, 7101, 7102
#: Figure -> unit, whether more is better, and how a value is shown.
Figures = dict[str, float]
LESS_IS_BETTER = ("CPU", "latency", "memory", "setup")


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


def throughput(host: Namespace, proxy: Proxy) -> Figures:
    """Gb/s and processor time by number of flows."""
    found = {}
    for flows in (1, 16, 256):
        with load(host, "drain", proxy.port, flows, 1.5) as sink:
            assert told(sink) == "counting\n"
            before = proxy.cpu_seconds()
            seen = json.loads(told(sink))
            spent = proxy.cpu_seconds() - before
        found[f"Gb/s, {flows} flows"] = seen["bytes"] * 8e-9 / seen["seconds"]
        found[f"CPU s/GB, {flows} flows"] = spent / (seen["bytes"] / 1e9)
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


def setup(host: Namespace, proxy: Proxy) -> Figures:
    """From connect() to the first answer over two proxies, legs pooled where there is a pool."""
    with load(host, "setup", proxy.port, 2000) as client:
        seen = json.loads(told(client))
    return {f"setup us {name}": seen[name] / 1e3 for name in ("p50", "p99", "p999")}


Section = tuple[Callable[[Namespace, Proxy], Figures], dict[str, Callable[..., object]], int]
COPYING = {
    "ackward": proxies.ackward,
    "ackward, copying": partial(proxies.ackward, splice=False),
    "haproxy": proxies.haproxy,
}
SECTIONS: dict[str, Section] = {
    "throughput": (throughput, proxies.PROXIES, SOURCE),
    "connections": (connections, proxies.PROXIES, HTTP),
    "latency": (latency, {name: proxies.PROXIES[name] for name in ("ackward", "haproxy", "nginx")}, ECHO),
    "memory": (memory, {name: proxies.PROXIES[name] for name in ("ackward", "haproxy", "nginx")}, ECHO),
    "setup": (setup, proxies.PAIRS, ECHO),
    "copying": (throughput, COPYING, SOURCE),
}


def run(name: str, host: Namespace, directory: Path, repetitions: int) -> None:
    measure, contestants, target = SECTIONS[name]
    seen: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(repetitions):
        figures: dict[str, Figures] = {}
        for number, contestant in enumerate(random.sample(list(contestants), len(contestants))):
            with contestants[contestant](host, directory, 7200 + 10 * number, target) as proxy:  # type: ignore[attr-defined]
                figures[contestant] = measure(host, proxy)
        for contestant, values in figures.items():
            for figure, value in values.items():
                seen[figure].append(
                    {"proxy": contestant, "value": value, "haproxy": figures["haproxy"][figure]}
                )  # type: ignore[dict-item]
    print(f"\n{name}: {measure.__doc__}")
    for figure, values in seen.items():
        better = "less is better" if figure.startswith(LESS_IS_BETTER) else "more is better"
        print(f"  {figure} ({better})")
        for contestant in contestants:
            mine = [one for one in values if one["proxy"] == contestant]
            ratios = sorted(one["value"] / one["haproxy"] for one in mine)
            print(
                f"    {contestant:<18} {statistics.median(one['value'] for one in mine):>12,.2f}"
                f"   {statistics.median(ratios):>6.2f}x of haproxy ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[])
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    if lacking := proxies.missing():
        raise SystemExit(f"install first: {', '.join(lacking)}")
    with temporary("bench") as host, tempfile.TemporaryDirectory(prefix="ackward-bench-") as directory:
        http = Path(directory) / "http.cfg"
        http.write_text(proxies.HTTP.format(port=HTTP, body="x" * 1000))
        origin = pinned(host, LOAD_CPU, ["haproxy", "-db", "-f", str(http)], stderr=subprocess.DEVNULL)
        try:
            while HTTP not in listening_ports(host):
                time.sleep(0.02)
            with load(host, "source", SOURCE) as source, load(host, "echo", ECHO) as echo:
                assert told(source) == told(echo) == "ready\n"
                for section in options.sections or SECTIONS:
                    run(section, host, Path(directory), options.repetitions)
        finally:
            origin.terminate()
            origin.wait()


if __name__ == "__main__":
    main()
