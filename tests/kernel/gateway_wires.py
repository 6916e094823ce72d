"""Hosts in a row for gateway tests: client, gateway, server; and two hosts with a narrow link on the way between them."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.polling import eventually

from ackward.gateway.faithful import checksum
from ackward.kernel.namespaces import Namespace, call_inside, command_inside, temporary
from ackward.lab.topology import run_on, set_sysctls

ADDRESSES = {4: "10.78.2.2", 6: "fd78:2::2"}
CLIENTS = {4: "10.78.1.2", 6: "fd78:1::2"}
NETWORKS = {4: "10.78.2.0/24", 6: "fd78:2::/64"}
CLIENT_NETWORKS = {4: "10.78.1.0/24", 6: "fd78:1::/64"}


@dataclass(frozen=True)
class Three:
    """client -- gateway -- server; the gateway routes between them."""

    client: Namespace
    gateway: Namespace
    server: Namespace


@dataclass(frozen=True)
class Narrow:
    """client -- left -- (a link with a smaller MTU) -- right -- server; both ends believe in their own 1500 bytes."""

    client: Namespace
    server: Namespace
    routers: tuple[Namespace, Namespace]

    def silence(self) -> None:
        """Let the routers tell nobody what is too long: an MTU black hole."""
        for router in self.routers:
            for command, protocol, message in (
                ("iptables", "icmp", "fragmentation-needed"),
                ("ip6tables", "icmpv6", "packet-too-big"),
            ):
                words = [command, "-w", "-A", "OUTPUT", "-p", protocol, f"--{protocol}-type", message]
                run_on(router, *words, "-j", "DROP")


def _wire(one: Namespace, device: str, other: Namespace, far_device: str, side: int) -> None:
    """A link on a network of its own: ``one`` is its .2, ``other`` its .1."""
    for host in (one, other):  # else a router solicits no neighbour for two seconds: its address is tentative
        set_sysctls(host, {f"net.ipv6.conf.{which}.accept_dad": "0" for which in ("all", "default")})
    names = ["link", "add", device, "netns", one.name, "type", "veth"]
    run_on(None, "ip", *names, "peer", "name", far_device, "netns", other.name)
    for host, name, last in ((one, device, 2), (other, far_device, 1)):
        run_on(host, "ip", "addr", "add", f"10.78.{side}.{last}/24", "dev", name)
        run_on(host, "ip", "addr", "add", f"fd78:{side}::{last}/64", "dev", name, "nodad")
        run_on(host, "ip", "link", "set", name, "up")


def _default_way(host: Namespace, side: int, last: int) -> None:
    run_on(host, "ip", "route", "add", "default", "via", f"10.78.{side}.{last}")
    run_on(host, "ip", "-6", "route", "add", "default", "via", f"fd78:{side}::{last}")


def _forwards(router: Namespace) -> None:
    set_sysctls(router, {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"})


def _await_way(client: Namespace) -> None:
    for address in ADDRESSES.values():
        assert eventually(lambda address=address: call_inside(client, _answers, address))


@contextmanager
def three_hosts() -> Iterator[Three]:
    with ExitStack() as stack:
        client, middle, far = (
            stack.enter_context(temporary(f"gw{name}")) for name in ("client", "mid", "server")
        )
        for host, device, side in ((client, "near", 1), (far, "far", 2)):
            _wire(host, "wire", middle, device, side)
            _default_way(host, side, 1)
        _forwards(middle)
        _await_way(client)
        yield Three(client, middle, far)


@contextmanager
def narrow_path(mtu: int) -> Iterator[Narrow]:
    with ExitStack() as stack:
        client, left, right, far = (
            stack.enter_context(temporary(f"gw{name}")) for name in ("client", "left", "right", "server")
        )
        _wire(client, "wire", left, "near", 1)
        _wire(far, "wire", right, "far", 2)
        _wire(left, "narrow", right, "narrow", 3)
        for host, side, last in ((client, 1, 1), (far, 2, 1), (left, 3, 1), (right, 3, 2)):
            _default_way(host, side, last)
        for router in (left, right):
            run_on(router, "ip", "link", "set", "narrow", "mtu", str(mtu))
            _forwards(router)
        _await_way(client)
        yield Narrow(client, far, (left, right))


def _answers(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect((address, 9))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return True


def spoofed_syn(choice: random.Random, destination: tuple[str, int]) -> bytes:
    """From an address of the client's network where nobody is."""
    source = socket.inet_aton(f"10.78.1.{choice.randrange(100, 250)}")
    target = socket.inet_aton(destination[0])
    header = struct.pack(
        "!HHIIBBHHH",
        choice.randrange(1024, 65536),
        destination[1],
        choice.randrange(1 << 32),
        0,
        5 << 4,
        2,
        65535,
        0,
        0,
    )
    sum_ = checksum(source + target + struct.pack("!BBH", 0, 6, len(header)) + header)
    header = header[:16] + struct.pack("!H", sum_) + header[18:]
    return struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + source + target + header


def routing(host: Namespace) -> dict[str, str]:
    """All of a host that a gateway may change, as text."""

    def show(*words: str) -> str:
        command = command_inside(host, list(words))
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    return {
        "routes": show("ip", "-4", "route", "show", "table", "all"),
        "routes6": "\n".join(
            line
            for line in show("ip", "-6", "route", "show", "table", "all").splitlines()
            if "fe80" not in line  # link-local addresses come when they like
        ),
        "rules": show("ip", "rule"),
        "rules6": show("ip", "-6", "rule"),
        "mangle": show("iptables", "-t", "mangle", "-S", "PREROUTING"),
        "mangle6": show("ip6tables", "-t", "mangle", "-S", "PREROUTING"),
        "queues": call_inside(host, _queues),
    }


def _queues() -> str:
    try:
        return Path("/proc/thread-self/net/netfilter/nfnetlink_queue").read_text()
    except OSError:
        return ""


def bpf_objects(pids: Iterable[int]) -> set[tuple[str, int]]:
    """What these processes hold of BPF, by kind and number in the kernel."""
    found = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/fdinfo").iterdir():
            with suppress(OSError):
                held = re.findall(r"^(prog|map|link)_id:\s*(\d+)", path.read_text(), re.MULTILINE)
                found |= {(kind, int(number)) for kind, number in held}
    return found


def alive(objects: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those that the kernel still has."""
    there = set()
    for kind in ("prog", "map", "link"):
        command = ["bpftool", "-j", kind, "show"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        there |= {(kind, one["id"]) for one in json.loads(shown)}
    return objects & there
