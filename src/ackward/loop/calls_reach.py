"""Which connections of a call capture a bypass is for. Pure, and as its program in the kernel decides."""

from __future__ import annotations

from functools import cache
from ipaddress import ip_network
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ackward.capture.calls import Calls, Numbers
from ackward.capture.live import ip_address
from ackward.model.scopes import BypassScope
from ackward.model.segments import Endpoint

Mask = NDArray[np.bool_]


def reached(seen: Calls, scope: BypassScope, netns: int) -> Mask:
    """Of the connections with both ends here, those in scope; ``netns``: the inode of the plan's namespace.

    Both ends together meet what is asked for; what is excluded at either stays out.
    """
    client, server = seen.ends[seen.clients], seen.ends[seen.servers]
    found: Mask = (client["netns"] == netns) | (server["netns"] == netns)
    ports = (client["remote_port"], server["local_port"])
    if scope.ports is not None:
        found &= _either(ports, scope.ports)
    if scope.cgroup is not None:
        found &= (client["in_cgroup"] | server["in_cgroup"]).astype(bool)
    for excluded in scope.excluded_ports:
        found &= ~_either(ports, excluded)
    sides = {
        "server": ((client, "remote"), (server, "local")),
        "client": ((client, "local"), (server, "remote")),
    }
    for network, side in ((scope.to, "server"), (scope.source, "client")):
        if network is not None:
            found &= np.logical_or(*(_inside(ends, whose, network) for ends, whose in sides[side]))
    for network in scope.excluded_networks:
        for ends, whose in (*sides["server"], *sides["client"]):
            found &= ~_inside(ends, whose, network)
    return found


def _either(ports: tuple[NDArray[Any], NDArray[Any]], allowed: tuple[int, int]) -> Mask:
    first, last = allowed
    return np.logical_or(*((first <= port) & (port <= last) for port in ports))


def _inside(ends: NDArray[Any], whose: str, network: str) -> Mask:
    allowed = ip_network(network)

    @cache
    def inside(family: int, raw: bytes) -> bool:
        return ip_address(family, np.frombuffer(raw, np.uint8))[0] in allowed

    families, addresses = ends["family"].tolist(), ends[f"{whose}_address"]
    raws = (address.tobytes() for address in addresses)
    return np.fromiter(map(inside, families, raws), bool, len(ends))


def by_service(seen: Calls, asking: Numbers, elapsed: NDArray[Any]) -> dict[str, NDArray[np.int64]]:
    """The times ``elapsed`` by the server that the end ``asking`` (an index of ``ends``) asked, each."""
    ends = seen.ends[asking]
    words = np.column_stack(
        [
            ends["remote_address"],
            *(ends[name].astype("<u2").view(np.uint8).reshape(-1, 2) for name in ("remote_port", "family")),
        ]
    )
    keys = np.ascontiguousarray(words).view(f"V{words.shape[1]}").reshape(-1)
    names, group_of = np.unique(keys, return_inverse=True)
    order = np.argsort(group_of, kind="stable")
    begins = np.searchsorted(group_of[order], np.arange(1, len(names)))
    groups = np.split(elapsed[order].astype(np.int64), begins)
    firsts = [asking[order][begin] for begin in (0, *begins)] if len(names) else []
    return {
        str(_server(seen.ends[first])): group
        for first, group in zip(firsts, groups[: len(names)], strict=True)
    }


def _server(end: Any) -> Endpoint:
    address, _ = ip_address(end["family"], end["remote_address"])
    return Endpoint(address, int(end["remote_port"]))
