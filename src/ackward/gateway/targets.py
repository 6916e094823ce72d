"""What the programs in the kernel are told of listeners: ``struct target`` in targets.h, and their settings."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from ackward.errors import PrivilegeMissing, ProgramRejected, UsageError
from ackward.gateway.settings import Address, FixedListener, Listener
from ackward.kernel.libbpf import Object
from ackward.kernel.machine import LINUX
from ackward.kernel.questions import capabilities

#: MAX_TARGETS and MAX_WORKERS in targets.h and steer.bpf.c.
MOST_TARGETS = 64
MOST_WORKERS = 64
_TARGET = struct.Struct("=16s16sHHII")
_SETTINGS = struct.Struct("=QIIII")
#: IPv4 as the programs in the kernel see it (RFC 4291, section 2.5.5.2).
MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True)
class Target:
    """A network (CIDR) and a range of ports; ``listener`` is the number of the listener it belongs to.

    ``interface``: where it comes in; empty: anywhere.
    """

    network: str
    first_port: int
    last_port: int
    listener: int
    interface: str = ""

    def matches(self, local: Address) -> bool:
        """Whether a connection to this local address is for it, as find_target() in targets.h sees it."""
        return self.first_port <= local[1] <= self.last_port and ip_address(local[0]) in ip_network(
            self.network
        )

    def overlaps(self, other: Target) -> bool:
        """Whether both may be meant by one address and port."""
        one, two = ip_network(self.network), ip_network(other.network)
        return (
            one.version == two.version
            and one.overlaps(two)
            and max(self.first_port, other.first_port) <= min(self.last_port, other.last_port)
        )

    def pack(self) -> bytes:
        """As the kernel has it. Raises :class:`UsageError` when there is no such interface."""
        network = ip_network(self.network)
        if network.version == 4:
            address, mask = MAPPED + network.network_address.packed, b"\xff" * 12 + network.netmask.packed
        else:
            address, mask = network.network_address.packed, network.netmask.packed
        family = socket.AF_INET if network.version == 4 else socket.AF_INET6
        interface = _number_of(self.interface) if self.interface else 0
        return _TARGET.pack(address, mask, self.first_port, self.last_port, family, interface)


def _number_of(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        known = ", ".join(name for _, name in socket.if_nameindex())
        raise UsageError(
            f"there is no interface {interface!r}",
            consequence="the gateway was not started",
            next_step=f"name one of: {known}",
        ) from error


def targets_of(listeners: tuple[Listener, ...]) -> list[Target]:
    """The targets of all listeners. Raises :class:`UsageError` when there are more than fit."""
    found = []
    for number, listener in enumerate(listeners):
        if isinstance(listener, FixedListener):
            host, port = listener.bind
            address = ip_address(host)
            # A listener on the unspecified address listens on all of them.
            network = f"{host}/{0 if address.is_unspecified else address.max_prefixlen}"
            found.append(Target(network, port, port, number))
        else:
            found += [
                Target(listener.network, first, last, number, listener.interface)
                for first, last in listener.ports
            ]
    if len(found) > MOST_TARGETS:
        raise UsageError(
            f"{len(found)} listeners and ranges of ports are more than the {MOST_TARGETS} that the kernel is told of",
            consequence="the gateway was not started",
            next_step="join ranges, or run a second gateway",
        )
    return found


def uncertain(targets: list[Target]) -> set[int]:
    """Numbers of those whose connections are another listener's if they come in at another interface."""
    return {
        number
        for number, one in enumerate(targets)
        for other in targets[number + 1 :]
        if one.interface
        and other.interface != one.interface
        and other.listener != one.listener
        and one.overlaps(other)
    }


def load(program: Object, targets: list[Target], *, netns: int, workers: int, worker: int = 0) -> None:
    """Load an opened program that includes targets.h, and tell it all that is in there.

    ``netns`` is the namespace's cookie, ``worker`` the number of the one that the program is for.
    """
    program.set_section(".rodata", _SETTINGS.pack(netns, len(targets), workers, worker, 0))
    try:
        program.load()
    except ProgramRejected as error:
        if "CAP_BPF" in capabilities(LINUX):
            raise
        # Root in a container that was not given it.
        raise PrivilegeMissing.for_this_command(
            "loading BPF programs needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", consequence=program.purpose
        ) from error
    table = program.map("targets")
    for number, target in enumerate(targets):
        table.put(struct.pack("=I", number), target.pack())
