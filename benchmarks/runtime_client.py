"""What asking a container runtime costs: our client on h2 against grpcio. ``python -m benchmarks.runtime_client``.

Importing: milliseconds and megabytes on top of what a command of ours has anyway, each in a process of its own, in turns.
Asking: a real containerd with POD_COUNT pods.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.cluster.containerd import conflist, containerd

from ackward.kernel import cri

REPEATS = 9
POD_COUNT = int(os.environ.get("POD_COUNT", "20"))
#: What each needs: a channel and messages.
CLIENTS = {
    "ackward.kernel.cri": "import ackward.kernel.cri",
    "grpcio and protobuf": "import grpc, google.protobuf.message_factory",
}
MEASURE = """
import sys, time
import ackward.kernel.processes
def memory():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024
before, began = memory(), time.perf_counter()
{statement}
print((time.perf_counter() - began) * 1e3, memory() - before)
"""


def imported(statement: str) -> tuple[float, float]:
    """Milliseconds and megabytes of one import in a fresh process."""
    code = MEASURE.format(statement=statement)
    words = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    milliseconds, megabytes = map(float, words.split())
    return milliseconds, megabytes


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):6.1f} ({min(values):.1f}-{max(values):.1f})"


def main() -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CLIENTS}
    for _ in range(REPEATS):
        for name, statement in CLIENTS.items():
            found[name].append(imported(statement))
    print(f"{'import':<22} {'ms':<22} MB")
    for name, values in found.items():
        times, sizes = zip(*values, strict=True)
        print(f"{name:<22} {spread(list(times)):<22} {spread(list(sizes))}")
    with containerd() as runtime, ThreadPoolExecutor(10) as ten:
        runtime.write_conflist(conflist("bench0"))
        runtime.until(runtime.network_ready, "the network is ready")
        list(ten.map(lambda number: runtime.run_pod(f"p{number}"), range(POD_COUNT)))
        os.environ[cri.ENVIRONMENT] = str(runtime.socket)
        listing, placing = [], []
        for _ in range(REPEATS):
            began = time.perf_counter()
            pods = cri.running().sandboxes
            listing.append((time.perf_counter() - began) * 1e3)
            began = time.perf_counter()
            with cri.Runtime(runtime.socket) as client:
                for pod in pods:
                    client.network_namespace(pod)
            placing.append((time.perf_counter() - began) * 1e3 / len(pods))
        print(f"\nlist {POD_COUNT} pods          {spread(listing)} ms")
        print(f"a pod's namespace     {spread(placing)} ms each")


if __name__ == "__main__":
    main()
