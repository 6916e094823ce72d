"""The ocean's hosts: client, entry, exit and server, each a namespace, and between them one that is the distance.

Every pair has its own round trip; the two on the same side of the ocean are near. Each leg, and the direct path as
well, has a bottleneck of the same rate; on the last mile to the client they share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ackward.kernel.namespaces import Namespace, temporary
from ackward.lab import programs
from ackward.lab.ocean_link import to_json
from ackward.lab.topology import run_on, set_sysctls
from ackward.lab.wan import Line, Loss

HOSTS = ("client", "entry", "exit", "server")
#: RFC 2544's network for tests, a part for each host.
ADDRESS = {name: f"198.18.{number}.2" for number, name in enumerate(HOSTS, 10)}
_ROUTER = {name: f"198.18.{number}.1" for number, name in enumerate(HOSTS, 10)}
DEVICE = "lab0"
#: Sizes of buffers are fixed here: over a link that passes a flight at once the kernel's own tuning sometimes leaves
#: the window at 64 kB (docs/predict.md). Reno doubles in slow start as the model does; BBR paces.
_SYSCTLS = {
    "net.ipv4.tcp_congestion_control": "reno",
    "net.ipv4.tcp_no_metrics_save": "1",
    "net.ipv4.tcp_fastopen": "3",
}


@dataclass(frozen=True)
class Distances:
    """Round trips in milliseconds, and the rate of every leg in Mbit/s. ``loss``: share lost on the way to the client.

    ``queue`` is what a bottleneck holds, bytes. ``shared``: all that comes to a host has one bottleneck together.
    """

    legs: tuple[float, float, float] = (28.0, 214.0, 32.0)
    rate: float = 50.0
    loss: float = 0.0
    queue: int = 16 << 20
    shared: bool = False

    def round_trips(self) -> Mapping[tuple[str, str], float]:
        """Between any two hosts, along the chain: there are no shortcuts."""
        return {
            (one, other): sum(self.legs[near:far])
            for near, one in enumerate(HOSTS)
            for far, other in enumerate(HOSTS)
            if near < far
        }


@dataclass(frozen=True)
class Ocean:
    """The hosts, by name, and the distance between them."""

    hosts: Mapping[str, Namespace]
    distances: Distances


@contextmanager
def ocean(distances: Distances) -> Iterator[Ocean]:
    """Make the hosts and the distance; they are gone at the end, whatever happened."""
    with ExitStack() as stack:
        middle = stack.enter_context(temporary("ocean"))
        hosts = {name: stack.enter_context(temporary(name)) for name in HOSTS}
        set_sysctls(middle, {"net.ipv4.ip_forward": "1"})
        for name, host in hosts.items():
            _wire(host, middle, name, distances)
        stack.enter_context(_distance(middle, distances))
        yield Ocean(hosts, distances)


def _wire(host: Namespace, middle: Namespace, name: str, distances: Distances) -> None:
    run_on(
        None,
        *("ip", "link", "add", DEVICE, "netns", host.name, "type", "veth"),
        *("peer", "name", name, "netns", middle.name),
    )
    for place, device, address in ((host, DEVICE, ADDRESS[name]), (middle, name, _ROUTER[name])):
        run_on(None, "ip", "-n", place.name, "addr", "add", f"{address}/24", "dev", device)
        run_on(None, "ip", "-n", place.name, "link", "set", device, "up")
    run_on(None, "ip", "-n", host.name, "route", "add", "default", "via", _ROUTER[name])
    set_sysctls(host, _SYSCTLS)
    _bottlenecks(middle, name, distances)


def _bottlenecks(middle: Namespace, name: str, distances: Distances) -> None:
    """What holds up that which comes to ``name``: the client's last mile is one for all, other legs are wires apart.

    Over a shared one the ACKs of the ocean's leg would wait behind what the server sends to the gateway.
    """

    def tc(kind: str, *words: str) -> None:
        run_on(middle, "tc", kind, "add", "dev", name, *words)

    together = distances.shared or name == "client"
    sources = () if together else tuple(each for each in HOSTS if each != name)
    tc("qdisc", "root", "handle", "1:", "htb", *(("default", "1") if together else ()))
    for number in range(1, len(sources or ("all",)) + 1):
        leg = f"1:{number}"
        # The burst is what a late timer may make up for: 10 ms at 50 Mbit/s.
        rate = ("rate", f"{distances.rate}mbit", "burst", "64kb")
        tc("class", "parent", "1:", "classid", leg, "htb", *rate)
        tc("qdisc", "parent", leg, "bfifo", "limit", str(distances.queue))
    for number, source in enumerate(sources, 1):
        match = ("u32", "match", "ip", "src", f"{ADDRESS[source]}/32", "flowid", f"1:{number}")
        tc("filter", "parent", "1:", "protocol", "ip", *match)


@contextmanager
def _distance(middle: Namespace, distances: Distances) -> Iterator[None]:
    """The delay lines, one process; the rules that feed them die with the namespace."""
    lines: dict[int, Line] = {}
    rules: list[tuple[str, str, int]] = []
    for pair, rtt in distances.round_trips().items():
        for come, go in (pair, pair[::-1]):
            number = len(lines) + 1
            lost = (Loss("any", probability=distances.loss),) if distances.loss and go == "client" else ()
            lines[number] = Line(rtt / 2, losses=lost)
            rules.append((come, go, number))
    with programs.ready(
        middle,
        "ackward.lab.ocean_link",
        to_json(lines),
        name="the ocean's link",
        consequence="the ocean cannot be crossed here; nothing is left behind",
        next_step="use a kernel with NFQUEUE (CONFIG_NETFILTER_NETLINK_QUEUE)",
    ):
        for come, go, number in rules:
            run_on(
                middle,
                *("iptables", "-t", "mangle", "-A", "FORWARD", "-i", come, "-o", go),
                *("-j", "NFQUEUE", "--queue-num", str(number)),
            )
        yield
