"""Test hosts: network namespaces of their own, joined by a veth pair.

Nothing of the machine's own network is touched.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ackward.errors import Unavailable
from ackward.kernel.namespaces import Namespace, call_inside, temporary

# RFC 2544 reserves 198.18.0.0/15 for tests between hosts; RFC 4193 gives the IPv6 side its prefix.
NETWORKS = {4: "198.18.0.0/24", 6: "fdac:77ad::/64"}
CLIENT = {4: "198.18.0.1", 6: "fdac:77ad::1"}
SERVER = {4: "198.18.0.2", 6: "fdac:77ad::2"}


@dataclass(frozen=True)
class TwoHosts:
    """A client host and a server host on one wire, with addresses of both families."""

    client: Namespace
    server: Namespace

    def server_address(self, family: int) -> str:
        """The server's address as the client reaches it."""
        return SERVER[family]

    def network(self, family: int) -> str:
        """The network that both are on."""
        return NETWORKS[family]


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(
            f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}",
            consequence="the lab's hosts cannot be made; nothing is left behind",
            next_step="run `ackward doctor`; the lab needs root, namespaces and veth",
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


@contextmanager
def two_hosts() -> Iterator[TwoHosts]:
    """Make both hosts; they are gone at the end, whatever happened."""
    with ExitStack() as stack:
        client, server = (stack.enter_context(temporary(label)) for label in ("client", "server"))
        _ip(
            "link",
            "add",
            "lab0",
            "netns",
            client.name,
            "type",
            "veth",
            "peer",
            "name",
            "lab0",
            "netns",
            server.name,
        )
        for host, addresses in ((client, CLIENT), (server, SERVER)):
            _ip("-n", host.name, "addr", "add", f"{addresses[4]}/24", "dev", "lab0")
            # nodad: duplicate address detection would keep the address tentative for a second.
            _ip("-n", host.name, "addr", "add", f"{addresses[6]}/64", "dev", "lab0", "nodad")
            _ip("-n", host.name, "link", "set", "lab0", "up")
        for address in SERVER.values():
            _wait_until_reachable(client, address)
        yield TwoHosts(client, server)
