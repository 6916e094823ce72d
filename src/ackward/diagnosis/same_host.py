"""Connections whose two ends are on one host: what a bypass of the stack would be worth to them, or why it would not.

Only what is certain counts: both ends were watched live, or the capture is of the loopback's own addresses. One
address at both ends is not enough: behind NAT two hosts may show the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ackward.diagnosis.attribution import Attribution
from ackward.diagnosis.counted import Counted
from ackward.diagnosis.flows import Flow
from ackward.diagnosis.partition import CAUSES
from ackward.diagnosis.words import place
from ackward.model.causes import Cause
from ackward.model.report import SameHost
from ackward.model.units import duration, plural, size

#: The share of the time on the network that joined sockets take less: requests of 1 B to 1 kB took 0.6 of TCP's
#: time, of 4 kB and more 0.45 (docs/bypass.md, `python -m benchmarks.bypass --only ask`).
SAVED = 0.4
#: A longer round trip holds a delay that somebody put between the ends (netem, a shaper), not the stack's work.
LONGEST_RTT_NS = 2_000_000
#: Fewer exchanges than this say nothing of how a service talks.
LEAST_EXCHANGES = 8
#: Bytes of an exchange above which it is a stream: its time is that of copying, and small writes in it lose.
LARGEST = 256 << 10


@dataclass
class _Service:
    flows: int = 0
    exchanges: int = 0
    octets: int = 0
    network_ns: int = 0
    rtt_ns: int = 0  # the shortest that is known of any of its connections
    live: bool = False
    mptcp: bool = False
    server: str = ""
    place: str = ""  # the option that names the server's namespace, if that is not the current one


def services(seen: Attribution, fast: Mapping[int, Counted]) -> list[SameHost]:
    """One entry for each server whose connections stay within a host, the largest gain first."""
    flows = seen.traffic.flows
    parts, at = seen.parts, CAUSES.index(Cause.NETWORK)
    mine = parts.cause == at
    network = np.bincount(seen.flow_of[mine], weights=parts.ns[mine], minlength=len(flows))
    exchanges = np.bincount(seen.exchanges.flow_of, minlength=len(flows))
    found: dict[tuple[str, str], _Service] = {}
    for number, flow in enumerate(flows):
        if not _stays(flow):
            continue
        where = str(flow.server), place(flow.server_end.owner if flow.server_end else None)
        service = found.setdefault(where, _Service(server=where[0], place=where[1]))
        sums = fast.get(number)
        service.flows += 1
        service.exchanges += int(exchanges[number]) + (sums.exchanges if sums else 0)
        service.network_ns += int(network[number]) + (sums.causes.get(Cause.NETWORK, 0) if sums else 0)
        service.octets += flow.bytes_to_server + flow.bytes_to_client
        if flow.min_rtt_ns:
            service.rtt_ns = min(service.rtt_ns or flow.min_rtt_ns, flow.min_rtt_ns)
        service.live |= flow.client_end is not None
        service.mptcp |= flow.mptcp
    return sorted(map(_told, found.values()), key=lambda one: -one.saves_ns)


def _stays(flow: Flow) -> bool:
    if flow.client_end and flow.server_end:
        return True
    return flow.client.address.is_loopback and flow.server.address.is_loopback


def _told(service: _Service) -> SameHost:
    why_not = _against(service)
    saves = 0 if why_not else int(service.network_ns * SAVED)
    each = service.octets // max(1, service.exchanges)
    seen = f"{plural(service.flows, 'connection')}, {plural(service.exchanges, 'exchange')} of {size(each)}"
    if why_not:
        words = f"{seen}: {why_not}"
    else:
        words = (
            f"{seen}: past the stack they would take about {duration(saves // service.exchanges)} less each, "
            f"{duration(saves)} in all, unless a program waits in recv() itself: `fix bypass` leaves such services "
            "on TCP"
            + ("" if service.live else "; add --netns if they are in another namespace than the current one")
        )
    port = service.server.rpartition(":")[2]
    return SameHost(
        server=service.server,
        known_by="both ends" if service.live else "loopback",
        flows=service.flows,
        exchanges=service.exchanges,
        saves_ns=saves,
        words=words,
        command=None if why_not else f"ackward fix bypass --port {port}{service.place} --dry-run",
    )


def _against(service: _Service) -> str:
    """Why a bypass is not proposed; empty if it is."""
    if service.mptcp:
        return "MPTCP, which no bypass can join"
    if service.exchanges < LEAST_EXCHANGES:
        return "too few exchanges to tell whether a bypass would pay"
    if service.octets > LARGEST * service.exchanges:
        return "they stream: that gains past the stack only where TCP gathers few writes, which packets do not tell"
    if service.rtt_ns > LONGEST_RTT_NS:
        return f"their round trip of {duration(service.rtt_ns)} is a delay between the ends, not the stack's work"
    if service.network_ns <= 0:
        return "none of their time is spent in the stack"
    return ""
