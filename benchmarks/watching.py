"""What watching costs: qperf latency and bandwidth, TCP and UDP, and iperf3, with and without `ackward watch`.

Each repetition runs all modes back to back in random order, so that ratios compare neighbours in time:
  off        nothing is watched
  matched    `ackward watch --port` names the very port that carries the load
  unmatched  it names another port
  empty      no watch; programs that do nothing hang on the same hooks (`empty.bpf.c`): what the kernel itself charges
  traced     `ackward trace --port` instead of a watch names the load's port
The ratio is that of the paired repetitions: median, and the quartiles as its spread. Needs root, qperf and iperf3.

    python benchmarks/watching.py [--pairs 9] [--seconds 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ackward.kernel.libbpf import Object
from ackward.kernel.namespaces import command_inside
from ackward.kernel.probes import cgroup2_mount
from ackward.lab.topology import TwoHosts, two_hosts

ACKWARD = str(Path(sys.executable).with_name("ackward"))
#: Both ends of qperf on one core: a wake-up across cores costs what the core's sleep state happens to be, which drowns
#: the cost of watching. iperf3 gets both cores.
PINNED = ("taskset", "-c", "0")
QPERF_PORT = 19767
IPERF_PORT = 19768
OTHER_PORT = 9
MODES = ("off", "matched", "unmatched", "empty", "traced")
#: The recorder's programs, and those of EMPTY.
AT_CGROUP, AT_TRACEPOINTS = ("sent", "received"), ("write_returned", "state_changed")
PROGRAMS = (*AT_CGROUP, *AT_TRACEPOINTS)
EMPTY = Path(__file__).with_name("empty.bpf.c")
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


@contextmanager
def running(argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def watching(mode: str, load_port: int) -> Iterator[None]:
    """`ackward watch` in the background, attached before the load begins and ended with Ctrl-C after it."""
    if mode == "off":
        yield
        return
    if mode == "empty":
        with _empty_programs():
            yield
        return
    if mode == "traced":
        with running([ACKWARD, "trace", "--port", str(load_port)]) as process:
            assert process.stderr is not None
            if process.stderr.readline() != "Tracing.\n":
                raise SystemExit(f"ackward trace did not start: {process.communicate()[1]}")
            yield
        return
    port = load_port if mode == "matched" else OTHER_PORT
    before = _programs()
    with running([ACKWARD, "watch", "--for", "60s", "--port", str(port), "--json"]) as process:
        deadline = time.monotonic() + 20
        while len(_programs().keys() - before.keys()) < len(PROGRAMS):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"ackward watch did not start: {process.communicate()[1]}")
            time.sleep(0.05)
        yield
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        seen = json.loads(output)
        if mode == "unmatched" and seen["capture"]["segments"]:
            raise SystemExit(f"{mode}: the watch saw {seen['capture']['segments']} segments")


@contextmanager
def _empty_programs() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as directory:
        compiled = Path(directory) / "empty.bpf.o"
        headers = f"-I/usr/include/{platform.machine()}-linux-gnu"
        subprocess.run(
            ["clang", "-target", "bpf", "-O2", "-g", headers, "-c", EMPTY, "-o", compiled], check=True
        )
        with Object(compiled, purpose="the hooks' own cost cannot be measured") as programs:
            programs.load()
            for hook in AT_CGROUP:
                programs.attach_cgroup(hook, cgroup2_mount())
            for hook in AT_TRACEPOINTS:
                programs.attach(hook)
            yield


def _programs() -> dict[int, dict[str, object]]:
    listed = json.loads(
        subprocess.run(["bpftool", "-j", "prog"], capture_output=True, text=True, check=True).stdout
    )
    return {program["id"]: program for program in listed if program.get("name") in PROGRAMS}


def _qperf(hosts: TwoHosts, seconds: int, test: str) -> float:
    """Microseconds for a latency, bits a second for a bandwidth."""
    argv = [
        *PINNED,
        "qperf",
        "-t",
        str(seconds),
        "-ip",
        str(QPERF_PORT),
        "-uu",
        hosts.server_address(4),
        test,
    ]
    done = subprocess.run(
        command_inside(hosts.client, argv), capture_output=True, text=True, timeout=60, check=False
    )
    found = re.search(r"(latency|recv_bw|bw)\s*=\s*([\d.]+) (ns|bytes/sec)", done.stdout)
    if not found:
        raise SystemExit(f"qperf said: {done.stdout}{done.stderr}")
    return float(found[2]) * (1e-3 if found[3] == "ns" else 8)


def _iperf(hosts: TwoHosts, seconds: int) -> float:
    argv = ["iperf3", "-c", hosts.server_address(4), "-p", str(IPERF_PORT), "-t", str(seconds), "-J"]
    done = subprocess.run(
        command_inside(hosts.client, argv), capture_output=True, text=True, timeout=60, check=True
    )
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])


#: name -> (how to measure, unit, port)
LOADS = {
    "TCP latency (qperf tcp_lat)": (
        lambda hosts, seconds: _qperf(hosts, seconds, "tcp_lat"),
        "us",
        QPERF_PORT,
    ),
    "UDP latency (qperf udp_lat)": (
        lambda hosts, seconds: _qperf(hosts, seconds, "udp_lat"),
        "us",
        QPERF_PORT,
    ),
    "TCP throughput (iperf3)": (_iperf, "Gb/s", IPERF_PORT),
    "UDP throughput (qperf udp_bw)": (
        lambda hosts, seconds: _qperf(hosts, seconds, "udp_bw"),
        "Gb/s",
        QPERF_PORT,
    ),
}


def run_times(hosts: TwoHosts, seconds: int) -> dict[str, float]:
    """Nanoseconds a run of each BPF program under the latency load, by the kernel's own count."""
    previous = STATS.read_text()
    STATS.write_text("1")
    try:
        before = set(_programs())
        with running([ACKWARD, "watch", "--for", "60s", "--port", str(QPERF_PORT)]):
            deadline = time.monotonic() + 20
            while len(set(_programs()) - before) < len(PROGRAMS) and time.monotonic() < deadline:
                time.sleep(0.05)
            _qperf(hosts, seconds, "tcp_lat")
            ours = [program for number, program in _programs().items() if number not in before]
        return {
            str(p["name"]): float(p["run_time_ns"]) / float(p["run_cnt"]) for p in ours if p.get("run_cnt")
        }
    finally:
        STATS.write_text(previous)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    generator = random.Random(1)
    results: dict[str, dict[str, list[float]]] = {}
    with two_hosts() as hosts:
        servers = ([*PINNED, "qperf"], ["iperf3", "-s", "-p", str(IPERF_PORT)])
        with (
            running(command_inside(hosts.server, servers[0])),
            running(command_inside(hosts.server, servers[1])),
        ):
            time.sleep(1)  # both print nothing when they are ready
            for name, (measure, _, port) in LOADS.items():
                values: dict[str, list[float]] = {mode: [] for mode in MODES}
                for number in range(given.pairs):
                    print(
                        f"\r{name}: pair {number + 1} of {given.pairs} ", end="", file=sys.stderr, flush=True
                    )
                    for mode in generator.sample(MODES, len(MODES)):
                        with watching(mode, port):
                            values[mode].append(measure(hosts, given.seconds))
                results[name] = values
            print(file=sys.stderr)
            times = run_times(hosts, given.seconds)
    _print(results, times)
    if given.json:
        given.json.write_text(json.dumps({"loads": results, "bpf_ns": times}, indent=2))
    return 0


def _print(results: dict[str, dict[str, list[float]]], times: dict[str, float]) -> None:
    watched = MODES[1:]
    print(f"{'load':<30}{'off':>12}" + "".join(f"{mode + ' / off':>24}" for mode in watched))
    for name, values in results.items():
        unit = LOADS[name][1]
        scale = 1e9 if unit == "Gb/s" else 1.0
        line = f"{name:<30}{statistics.median(values['off']) / scale:>7.2f} {unit:<4}"
        for mode in watched:
            ratios = sorted(value / off for value, off in zip(values[mode], values["off"], strict=True))
            low, middle, high = statistics.quantiles(ratios, n=4)
            line += f"{f'{middle:.3f} ({low:.3f}-{high:.3f})':>24}"
        print(line)
    print("\nmedian of the paired ratios (quartiles); latency: smaller is better, throughput: larger")
    print(
        "ns a run, by the kernel's own count: "
        + ", ".join(f"{name} {ns:.0f}" for name, ns in sorted(times.items()))
    )


if __name__ == "__main__":
    sys.exit(main())
