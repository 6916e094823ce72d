"""Test hosts: network namespaces of their own, joined by a veth pair or by a long link through a router.

Nothing of the machine's own network is touched.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from ackward.errors import Unavailable
from ackward.kernel import sysctl
from ackward.kernel.namespaces import Namespace, call_inside, command_inside, temporary
from ackward.lab import programs
from ackward.lab.delay_line import TO_CLIENT, TO_SERVER
from ackward.lab.wan import Line, Wan

# RFC 2544 reserves 198.18.0.0/15 for tests between hosts; RFC 4193 gives the IPv6 side its prefix.
CLIENT = {4: "198.18.0.1", 6: "fdac:77ad::1"}
SERVER = {4: "198.18.0.2", 6: "fdac:77ad::2"}
#: Behind a long link the server is on a network of its own, and a router has an address on both.
FAR_SERVER = {4: "198.18.1.2", 6: "fdac:77ad:1::2"}
NEAR_ROUTER = {4: "198.18.0.254", 6: "fdac:77ad::fe"}
FAR_ROUTER = {4: "198.18.1.254", 6: "fdac:77ad:1::fe"}
_PREFIX = {4: 24, 6: 64}
#: The device of either host.
DEVICE = "lab0"


@dataclass(frozen=True)
class TwoHosts:
    """A client host and a server host that reach each other by both families; ``router`` is between them if far."""

    client: Namespace
    server: Namespace
    addresses: Mapping[int, str] = field(default_factory=lambda: SERVER)
    router: Namespace | None = None

    def server_address(self, family: int) -> str:
        """The server's address as the client reaches it."""
        return self.addresses[family]

    def client_address(self, family: int) -> str:
        """The client's address as the server sees it."""
        return CLIENT[family]


def set_sysctls(
    host: Namespace,
    settings: Mapping[str, str],
    *,
    next_step: str = "run it on a kernel that has this sysctl",
) -> None:
    """Set sysctls of one host, for example ``net.ipv4.tcp_early_retrans``; they die with it.

    Raises :class:`Unavailable` with ``next_step`` for one that is not there.
    """
    for name, value in settings.items():
        try:
            sysctl.write(host, name, value)
        except Unavailable as error:
            raise Unavailable(
                f"in the lab's host {error.missing}",
                consequence="the scenario cannot be reproduced; nothing is left behind",
                next_step=next_step,
            ) from error


def run_on(host: Namespace | None, *argv: str) -> None:
    """Run a command that sets something up, in ``host``; raises :class:`Unavailable` with its words."""
    command = command_inside(host, list(argv)) if host else list(argv)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        complaint = done.stderr.strip() if done.returncode else ""
        failed = done.returncode != 0
    except FileNotFoundError as error:
        complaint, failed = f"{error.filename} is not installed", True
    if failed:
        raise Unavailable(
            f"`{' '.join(argv)}` failed: {complaint}",
            consequence="the lab's hosts cannot be made; nothing is left behind",
            next_step="run `ackward doctor`; the lab needs root, namespaces and veth, a long link also iptables "
            "and NFQUEUE",
        )


def _reachable(address: str) -> bool:
    """Whether the other host's stack answers: a refusal is an answer."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.1)
        try:
            probe.connect((address, 9))  # the discard port: nobody listens in a new namespace
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return True


def _wait_until_reachable(host: Namespace, address: str) -> None:
    """A link just up loses its first neighbour solicitation; a lost SYN would cost the first round 1 s."""
    deadline = time.monotonic() + 10
    while not call_inside(host, _reachable, address):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{address} does not answer over the lab's veth pair",
                consequence="the lab cannot run; nothing is left behind",
                next_step="look for a firewall rule that applies to new namespaces",
            )


def _wire(one: Namespace, device: str, other: Namespace, other_device: str) -> None:
    run_on(
        None,
        *("ip", "link", "add", device, "netns", one.name, "type", "veth"),
        *("peer", "name", other_device, "netns", other.name),
    )


def _address(host: Namespace, device: str, addresses: Mapping[int, str]) -> None:
    for family, address in addresses.items():
        # nodad: duplicate address detection would keep the address tentative for a second.
        once = ["nodad"] if family == 6 else []
        run_on(
            None,
            *("ip", "-n", host.name, "addr", "add", f"{address}/{_PREFIX[family]}", "dev", device, *once),
        )
    run_on(None, "ip", "-n", host.name, "link", "set", device, "up")


@contextmanager
def _host(label: str) -> Iterator[Namespace]:
    """A namespace whose devices have a link-local address at once: without one a router solicits no neighbour.

    Duplicate address detection would keep it tentative for up to two seconds (net/ipv6/addrconf.c, ndisc_solicit()).
    """
    with temporary(label) as host:
        # Off for a device only where both say so.
        set_sysctls(host, {f"net.ipv6.conf.{which}.accept_dad": "0" for which in ("all", "default")})
        yield host


@contextmanager
def two_hosts(wan: Wan | None = None) -> Iterator[TwoHosts]:
    """Make both hosts, on one wire or at the ends of ``wan``; they are gone at the end, whatever happened."""
    with ExitStack() as stack:
        client, server = (stack.enter_context(_host(label)) for label in ("client", "server"))
        if wan is None:
            hosts = TwoHosts(client, server)
            _wire(client, DEVICE, server, DEVICE)
            _address(server, DEVICE, SERVER)
        else:
            router = stack.enter_context(_host("router"))
            hosts = TwoHosts(client, server, FAR_SERVER, router)
            _wire(client, DEVICE, router, "near")
            _wire(server, DEVICE, router, "far")
            _address(router, "near", NEAR_ROUTER)
            _address(router, "far", FAR_ROUTER)
            _address(server, DEVICE, FAR_SERVER)
            set_sysctls(router, {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"})
        _address(client, DEVICE, CLIENT)
        if wan is not None:
            _route(client, NEAR_ROUTER)
            _route(server, FAR_ROUTER)
        for address in hosts.addresses.values():
            _wait_until_reachable(client, address)
        if wan is not None:
            # Last, so that no probe of ours counts as a connection that the link may harm.
            stack.enter_context(_delayed(router, wan))
        yield hosts


def _route(host: Namespace, gateways: Mapping[int, str]) -> None:
    for family, gateway in gateways.items():
        run_on(None, "ip", "-n", host.name, f"-{family}", "route", "add", "default", "via", gateway)
    # What an earlier connection measured would let a later one begin with its window (net/ipv4/tcp_metrics.c).
    set_sysctls(host, {"net.ipv4.tcp_no_metrics_save": "1"})


def set_metrics(host: Namespace, hosts: TwoHosts, metrics: Sequence[str]) -> None:
    """Give ``host``'s IPv4 and IPv6 routes to the other host attributes such as ``quickack 1``."""
    gateways = NEAR_ROUTER if host == hosts.client else FAR_ROUTER
    others = hosts.addresses if host == hosts.client else CLIENT
    for family, other in others.items():
        via = ("via", gateways[family]) if hosts.router else ()
        run_on(
            None,
            *("ip", "-n", host.name, f"-{family}", "route", "replace", other, *via, "dev", DEVICE, *metrics),
        )


@contextmanager
def _delayed(router: Namespace, wan: Wan) -> Iterator[None]:
    """The delay line, running in the router until the end; the rules that feed it die with the router."""
    with programs.ready(
        router,
        "ackward.lab.delay_line",
        wan.to_json(),
        name="the lab's long link",
        consequence="scenarios with a long link cannot run here; nothing is left behind",
        next_step="use a kernel with NFQUEUE (CONFIG_NETFILTER_NETLINK_QUEUE)",
    ):
        _line(router, "near", "far", TO_SERVER, wan.to_server)
        _line(router, "far", "near", TO_CLIENT, wan.to_client)
        yield


def _line(router: Namespace, entry: str, out: str, queue: int, line: Line) -> None:
    for tables in ("iptables", "ip6tables"):
        run_on(
            router,
            *(tables, "-t", "mangle", "-A", "FORWARD", "-i", entry, "-j", "NFQUEUE"),
            *("--queue-num", str(queue)),
        )
    if line.rate:
        run_on(
            router,
            *("tc", "qdisc", "add", "dev", out, "root", "tbf", "rate", f"{line.rate}mbit"),
            *("burst", "16kb", "latency", "400ms"),
        )
