"""What the CNI plugin adds to a pod's start, beside the smallest plugin written in Go, `loopback`.

Each repetition makes a namespace as a primary CNI leaves it (one interface; default routes of both families) and runs, in
random order, each as a runtime would: a process, its variables, the configuration on stdin, its stdout read.
  loopback    ADD of Go's `loopback` (Debian's containernetworking-plugins)
  plain       ADD of our stub for a pod that asks for nothing
  quickack    ADD of our stub for a pod with `enable-quickack`: four routes changed, read back, with their receipt
  alone       ADD for such a pod when there is no agent: prevResult printed, the request left
  version     VERSION, which the stub answers by itself: what starting a process costs
The agent is a process of its own and warm, with other pods on record, in memory as /run is on a node. A figure is the median with its quartiles, a ratio
that of the paired repetitions.

`first` is the time from the begin of a pod's ADD to the first ACK that quickack made: the ADD ends, a server starts in the
pod and accepts, the client's Nagle holds its second write until the ACK of the first comes, in a connection that is in
pingpong mode by then. Beside it the same for a pod that does not ask, where the delayed ACK is waited for.

    python -m benchmarks.cni [--pairs 100] [--pods 200] [--json FILE]          needs root, containernetworking-plugins
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.stub_runs import configuration, stub

from ackward.kernel import sysctl
from ackward.kernel.namespaces import Namespace, call_inside, temporary
from ackward.node.pods import Attachment

LOOPBACK = "/usr/lib/cni/loopback"
ASKS = {"enable-quickack": "true"}
#: Rounds until a new connection is in pingpong mode and has used up the quick ACKs of its first segments.
SETTLED = 6

AGENT = """
import sys, threading
from pathlib import Path
from ackward.node.cni_commands import Commands
from ackward.node.cni_missed import Missed
from ackward.node.pods import Pods
from ackward.node.requests import Server
node = Path(sys.argv[1])
server = Server(node / "agent.sock", Commands(Pods(node / "attachments"), Missed(node / "missed")), print)
server.open()
print("ready", flush=True)
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
server.run(stop)
server.close()
"""


@contextmanager
def agent(node: Path) -> Iterator[None]:
    """The request side of the agent, warm."""
    process = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(node)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def ip(namespace: Namespace, *lines: str) -> None:
    subprocess.run(["ip", "-n", namespace.name, "-batch", "-"], input="\n".join(lines), text=True, check=True)


@contextmanager
def pod(beyond: Namespace, number: int) -> Iterator[Namespace]:
    """A sandbox after its primary CNI, wired to ``beyond``, which has the other half of its addresses."""
    with temporary("pod") as made:
        sysctl.write(made, "net.ipv6.conf.default.accept_dad", "0")
        device, net, net6 = f"p{number}", f"10.177.{number % 200}", f"fdac:{number:x}:"
        ends = [
            "link",
            "add",
            "eth0",
            "netns",
            made.name,
            "type",
            "veth",
            "peer",
            "name",
            device,
            "netns",
            beyond.name,
        ]
        subprocess.run(["ip", *ends], check=True)
        ip(
            beyond,
            f"link set {device} up",
            f"addr add {net}.1/24 dev {device}",
            f"addr add {net6}:1/64 dev {device} nodad",
        )
        ip(
            made,
            "link set eth0 up",
            f"addr add {net}.2/24 dev eth0",
            f"addr add {net6}:2/64 dev eth0 nodad",
            f"route add default via {net}.1",
            f"route add default via {net6}:1",
        )
        try:
            yield made
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip(beyond, f"link del {device}")


def executed(argv: list[str], command: str, stdin: bytes, namespace: Namespace, container: str) -> float:
    """Milliseconds from the start of the process to its end."""
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container,
        "CNI_NETNS": str(namespace.path),
        "CNI_IFNAME": "lo" if argv[0] == LOOPBACK else "eth0",
        "CNI_PATH": "/usr/lib/cni",
    }
    begun = time.perf_counter()
    done = subprocess.run(argv, input=stdin, env=environment, capture_output=True, check=False)
    taken = (time.perf_counter() - begun) * 1e3
    assert done.returncode == 0, done.stdout
    return taken


def runs(node: Path, nobody: Path, namespace: Namespace) -> dict[str, float]:
    """One of each, in random order."""
    socket_path = node / "agent.sock"
    lo = json.dumps({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}).encode()
    name = namespace.name
    cases = {
        "loopback": ([LOOPBACK], "ADD", lo, f"{name}-l"),
        "plain": (stub(), "ADD", configuration(socket_path, {}), f"{name}-p"),
        "quickack": (stub(), "ADD", configuration(socket_path, ASKS), f"{name}-q"),
        "alone": (stub(), "ADD", configuration(nobody / "agent.sock", ASKS), f"{name}-a"),
        "version": (stub(), "VERSION", configuration(socket_path), f"{name}-v"),
    }
    found = {}
    for case in random.sample(sorted(cases), len(cases)):
        argv, command, stdin, container = cases[case]
        found[case] = executed(argv, command, stdin, namespace, container)
    routes = subprocess.run(["ip", "-n", name, "route"], capture_output=True, text=True, check=True).stdout
    assert routes.count("quickack 1") == 2, routes
    executed(stub(), "DEL", configuration(socket_path), namespace, f"{name}-q")
    executed(stub(), "DEL", configuration(nobody / "agent.sock"), namespace, f"{name}-a")
    return found


def first_ack(
    node: Path, namespace: Namespace, beyond: Namespace, asks: dict[str, str], address: str
) -> tuple[float, float]:
    """Milliseconds from the begin of the ADD to the end of the first round that depends on the ACK; and that round."""
    begun = time.perf_counter()
    executed(stub(), "ADD", configuration(node / "agent.sock", asks), namespace, f"{namespace.name}-f")
    listener = call_inside(namespace, socket.create_server, (address, 7000))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while _received(connection, 300):
                connection.sendall(b"a" * 100)

    server = threading.Thread(target=serve)
    server.start()
    with listener, call_inside(beyond, socket.create_connection, (address, 7000), 10) as client:
        for _ in range(SETTLED):
            start = time.perf_counter()
            client.sendall(b"h" * 100)
            client.sendall(b"b" * 200)
            assert _received(client, 100)
            end = time.perf_counter()
    server.join()
    executed(stub(), "DEL", configuration(node / "agent.sock"), namespace, f"{namespace.name}-f")
    return (end - begun) * 1e3, (end - start) * 1e3


def _received(connection: socket.socket, count: int) -> bool:
    while count:
        data = connection.recv(count)
        if not data:
            return False
        count -= len(data)
    return True


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--pods", type=int, default=200, help="other pods on record")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root")
    found: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="ackward-cni-", dir="/dev/shm") as directory,
        temporary("beyond") as beyond,
    ):
        node, nobody = Path(directory) / "node", Path(directory) / "nobody"
        for number in range(options.pods):  # their namespaces make no difference to another pod's ADD
            record = Attachment(
                container_id=f"other-{number}", ifname="eth0", netns="/run/netns/other", annotations=ASKS
            )
            place = node / "attachments" / f"other-{number}.eth0"
            place.mkdir(parents=True)
            (place / "attachment").write_text(record.model_dump_json())
        nobody.mkdir()
        with agent(node):
            for number in range(-3, options.pairs):
                with pod(beyond, number + 3) as here:
                    times = runs(node, nobody, here)
                    if number < 0:
                        continue
                    for case, taken in times.items():
                        found.setdefault(case, []).append(taken)
                    if number % 5 == 0:
                        address = f"10.177.{(number + 3) % 200}.2"
                        for case, asks in (("first, asks", ASKS), ("first, does not", {})):
                            whole, one_round = first_ack(node, here, beyond, asks, address)
                            found.setdefault(case, []).append(whole)
                            found.setdefault(f"{case}: the round", []).append(one_round)
    print(f"{'ms':28} median   quartiles          over loopback (paired)")
    for case, values in found.items():
        low, middle, high = quartiles(values)
        line = f"{case:28} {middle:6.2f}   {low:6.2f} to {high:6.2f}"
        if len(values) == len(found["loopback"]):
            ratios = [one / other for one, other in zip(values, found["loopback"], strict=True)]
            low, middle, high = quartiles(ratios)
            line += f"   {middle:.2f}x ({low:.2f} to {high:.2f})"
        print(line)
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
