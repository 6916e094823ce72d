"""Conversations on paper: packets as a capture at one end would show them, for tests of the causes."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

import numpy as np

from ackward.diagnosis.diagnose import explain
from ackward.diagnosis.traffic import Traffic
from ackward.diagnosis.wire import WireFlow, WireFlows, view
from ackward.model.report import Capture, Report
from ackward.model.segments import WIRE_SEGMENT, Endpoint, Flag

MSS = 1000
CLIENT, SERVER = Endpoint(ip_address("192.0.2.1"), 40000), Endpoint(ip_address("192.0.2.2"), 80)


@dataclass(frozen=True)
class Packet:
    """One packet. ``at`` in milliseconds; ``seq`` and ``ack`` count payload bytes from 0, the SYN is ``flags="S"``.

    ``sack`` is its first SACK block; ``dsack`` says that the second one encloses it.
    """

    at: float
    to_server: bool
    seq: int = 0
    size: int = 0
    ack: int = 0
    flags: str = ""
    window: int = 1 << 20
    sack: tuple[int, int] | None = None
    dsack: bool = False


def q(at, seq=0, size=0, ack=0, **more):
    """A packet from the client."""
    return Packet(at, True, seq, size, ack, **more)


def a(at, seq=0, size=0, ack=0, **more):
    """A packet from the server."""
    return Packet(at, False, seq, size, ack, **more)


def handshake(rtt, at="client", begin=0.0, window=1 << 20):
    """Three packets as that end sees them."""
    answered, confirmed = (rtt, rtt + 0.05) if at == "client" else (0.05, rtt)
    return [q(begin, flags="S"), a(begin + answered, flags="SA", window=window), q(begin + confirmed)]


def rows_of(packets):
    """The capture's rows. Sequence numbers begin at 1000 (client) and 5000 (server), as on a wire: not at 0."""
    rows = np.zeros(len(packets), WIRE_SEGMENT)
    for row, packet in zip(rows, packets, strict=True):
        base, other = (1000, 5000) if packet.to_server else (5000, 1000)
        syn = "S" in packet.flags
        row["time_ns"] = round(packet.at * 1e6)
        row["to_server"] = packet.to_server
        row["seq"] = base + packet.seq + (0 if syn else 1)
        row["ack"] = 0 if packet.flags == "S" else other + packet.ack + 1
        row["bytes"], row["segments"] = packet.size, max(1, -(-packet.size // MSS))
        row["window"] = packet.window
        row["tcp_flags"] = (
            (Flag.SYN if syn else 0)
            | (0 if packet.flags == "S" else Flag.ACK)
            | (Flag.FIN if "F" in packet.flags else 0)
        )
        if packet.sack:
            row["sack_left"], row["sack_right"] = (other + 1 + edge for edge in packet.sack)
            row["dsack"] = packet.dsack or packet.sack[0] < packet.ack
    rows["packet"] = np.arange(len(rows))
    return rows[np.argsort(rows["time_ns"], kind="stable")]


def report_of(packets) -> Report:
    """What the diagnosis says of one connection."""
    flows, rows = view(WireFlows.of([WireFlow(CLIENT, SERVER, MSS)]), rows_of(packets))
    return explain(Traffic.of(flows, rows), Capture(source="dialogue")).report


def spent(report):
    """Milliseconds by cause, those above a tenth of one."""
    return {
        str(cause): round(total.ns / 1e6, 1) for cause, total in report.causes.items() if total.ns > 100_000
    }
