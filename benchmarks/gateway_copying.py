"""Ways to move a byte from socket to socket, as in the talk: copy, MSG_ZEROCOPY, splice, sockmap.

Bare relays (``benchmarks.gateway_relays``) between the loads of ``benchmarks.gateway``: the relay on one processor, the
loads on the other, interleaved, beside a run without any relay. What sockmap does, the kernel does in the sender's
time and in its workers', so the honest figure is that of both processors, less what the same bytes cost without a
relay, at a rate that every way carries: at full speed a sockmap takes in more than it gives out. Each way then meets a
client that does not read for a second. Needs root, two processors, clang.

    python -m benchmarks.gateway_copying [--repetitions 5] [--flows 1,16] [--congestion reno]
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ackward.kernel.namespaces import Namespace, temporary
from benchmarks.gateway import SOURCE, busy_seconds, choose_congestion, load, told
from benchmarks.gateway_proxies import LOAD_CPU, PROXY_CPU, pinned
from benchmarks.gateway_relays import WAYS

HEADERS = Path(__file__).parents[1] / "src" / "ackward" / "kernel" / "bpf"
PORT, PROBED, PACED = 7300, 7400, 7401
#: What every way can carry, Gb/s: processor time is compared where all move the same.
RATE = 3.0
#: What a client that does not read may make the server send, bytes.
LIMIT = 256 << 20


def compiled(directory: Path) -> Path:
    """The object beside this file, compiled as the build does it."""
    target = directory / "gateway_copying.bpf.o"
    clang = shutil.which("clang")
    assert clang is not None, "clang is not installed"
    includes = [f"-I{HEADERS}", f"-I/usr/include/{platform.machine()}-linux-gnu"]
    source = Path(__file__).with_name("gateway_copying.bpf.c")
    flags = ["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror"]
    subprocess.run([clang, *flags, *includes, "-c", str(source), "-o", str(target)], check=True)
    return target


def own_seconds(pid: int) -> float:
    """Of one process, user and system (the kernel's own account, in nanoseconds)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


@contextmanager
def relaying(host: Namespace, way: str, port: int, target: int, program: Path) -> Iterator[int]:
    """A relay that runs; its process."""
    argv = [sys.executable, "-m", "benchmarks.gateway_relays", way, str(port), str(target), str(program)]
    process = pinned(host, PROXY_CPU, argv, stdout=subprocess.PIPE)
    try:
        assert told(process) == "ready\n", f"{way} did not start"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def moved(host: Namespace, port: int, flows: int, pid: int | None, seconds: float) -> dict[str, float]:
    """Gb/s, and nanoseconds of processor for a byte."""
    with load(host, "drain", port, flows, seconds) as sink:
        assert told(sink) == "counting\n"
        busy, own = busy_seconds(PROXY_CPU, LOAD_CPU), own_seconds(pid) if pid else 0.0
        seen = json.loads(told(sink))
        busy = busy_seconds(PROXY_CPU, LOAD_CPU) - busy
        own = (own_seconds(pid) if pid else 0.0) - own
    return {
        "Gb/s": seen["bytes"] * 8e-9 / seen["seconds"],
        "own": own / seen["bytes"] * 1e9,
        "both": busy / seen["bytes"] * 1e9,
    }


def unread(host: Namespace, way: str, program: Path) -> str:
    """What becomes of the bytes of a server whose client does not read for a second."""
    argv = [sys.executable, "-m", "benchmarks.gateway_relays", "probe"]
    process = pinned(
        host,
        LOAD_CPU,
        [*argv, str(PROBED), str(PORT), str(LIMIT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert told(process) == "ready\n"
        with relaying(host, way, PORT, PROBED, program):
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            taken, sent, come, same = map(int, told(process).split())
    finally:
        process.kill()
        process.communicate()
    end = "all of it came" if same else f"{come / 1e6:,.1f} of {sent / 1e6:,.1f} MB came"
    return f"{taken / 1e6:8,.1f} MB taken from the server in a second without a reader; then {end}"


def shown(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--flows", default="1,16")
    parser.add_argument("--congestion", default="reno")
    options = parser.parse_args()
    flows_asked = [int(word) for word in options.flows.split(",")]
    found: dict[tuple[int, str], list[dict[str, float]]] = defaultdict(list)
    with temporary("copying") as host, tempfile.TemporaryDirectory(prefix="ackward-bench-") as directory:
        choose_congestion(host, options.congestion)
        program = compiled(Path(directory))
        with load(host, "source", SOURCE) as source, load(host, "paced", PACED, RATE) as paced:
            assert told(source) == told(paced) == "ready\n"
            for _ in range(options.repetitions):
                for flows in flows_asked:
                    alone = moved(host, PACED, flows, None, options.seconds)
                    full = moved(host, SOURCE, flows, None, options.seconds)["Gb/s"]
                    found[flows, "none"].append(alone | {"full": full, "added": 0.0})
                    for way in random.sample(list(WAYS), len(WAYS)):
                        with relaying(host, way, PORT, PACED, program) as pid:
                            figures = moved(host, PORT, flows, pid, options.seconds)
                        with relaying(host, way, PORT, SOURCE, program) as pid:
                            full = moved(host, PORT, flows, pid, options.seconds)["Gb/s"]
                        added = figures["both"] - alone["both"]
                        found[flows, way].append(figures | {"full": full, "added": added})
        print("median (least to most); nanoseconds of processor for a byte that arrived")
        for flows in flows_asked:
            print(
                f"\n{flows} flows: Gb/s at full speed | of {RATE:g} Gb/s: arrived, the relay's own ns, ns added on both"
            )
            for way in ("none", *WAYS):
                values = found[flows, way]
                columns = [
                    shown([one[name] for one in values], digits)
                    for name, digits in (("full", 1), ("Gb/s", 2), ("own", 3), ("added", 3))
                ]
                print(f"  {way:<9}", *(f"{column:<26}" for column in columns))
        print()
        for way in WAYS:
            print(f"  {way:<9} {unread(host, way, program)}")


if __name__ == "__main__":
    main()
