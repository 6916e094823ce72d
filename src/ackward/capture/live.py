"""Watches live sockets: loads the recorder, drains it, and gives back what it saw as a :class:`Recording`."""

from __future__ import annotations

import ipaddress
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ackward.capture.event_layout import FLOW_RECORD, SEGMENT_EVENT, SOCKET_RECORD
from ackward.errors import ProgramRejected
from ackward.kernel import sysctl
from ackward.kernel.libbpf import Map, Object
from ackward.kernel.namespaces import Namespace, current
from ackward.kernel.probes import cgroup2_mount
from ackward.kernel.processes import container_of_cgroup
from ackward.kernel.sockets import listening_ports
from ackward.model.segments import (
    SEGMENT,
    Endpoint,
    FastExchanges,
    Owner,
    Recording,
    Segments,
    SocketFacts,
    Vantage,
)

PROGRAM = Path(__file__).with_name("segments.bpf.o")
#: Beyond this many events (80 bytes each) a watch ends early, and says so: memory is bounded.
MOST_EVENTS = 8_000_000
NO_RTT = 0xFFFFFFFF  # rtt_min before its first sample (tcp_init_sock)
AF_INET6 = 10
ROLE_CLIENT = 1


@dataclass(frozen=True)
class Scope:
    """What to watch.

    ``slow_ns`` is the elapsed time from which an exchange is recorded event by event; 0 records all.
    ``buffer_bytes``, a power of two, is what the kernel may hold between two polls.
    """

    port: int | None = None
    netns: Namespace | None = None
    cgroup: Path | None = None
    slow_ns: int = 1_000_000
    buffer_bytes: int = 16 << 20


class LiveCapture:
    """A running recorder. Use as a context manager; call :meth:`poll` often, then :meth:`finish` once."""

    def __init__(self, scope: Scope, namespaces: Iterable[Namespace]) -> None:
        self.scope = scope
        self._names = {namespace.inode: namespace.name for namespace in namespaces}
        self._namespaces = tuple(namespaces)
        self._notes: list[str] = []
        self._drained: list[NDArray[Any]] = []
        self.events = 0

    @property
    def full(self) -> bool:
        """Whether no more events should be taken."""
        return self.events >= MOST_EVENTS

    def __enter__(self) -> Self:
        from ackward.kernel.ring import Ring

        self._object = Object(PROGRAM, purpose="live sockets cannot be watched")
        try:
            settings = struct.pack(
                "=QQIHHH6x",
                self.scope.slow_ns,
                self.scope.cgroup.stat().st_ino if self.scope.cgroup else 0,
                self.scope.netns.inode if self.scope.netns else 0,
                self.scope.port or 0,
                *_ephemeral_ports(),
            )
            self._object.set_section(".rodata", settings)
            for buffer in ("events", "batches"):
                self._object.resize(buffer, self.scope.buffer_bytes)
            self._object.load()
            self._tell_listeners()
            self._attach()
            self._ring = Ring(self._object.map("events"), SEGMENT_EVENT)
            self._batches = Ring(self._object.map("batches"), SOCKET_RECORD["ring"])
        except BaseException:
            self._object.close()
            raise
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batches.close()
        self._ring.close()
        self._object.close()

    def _tell_listeners(self) -> None:
        known = self._object.map("listeners")
        found = [
            (namespace.inode, port) for namespace in self._namespaces for port in listening_ports(namespace)
        ]
        anywhere = dict.fromkeys((0, port) for _, port in found)
        for place in islice(chain(anywhere, found), known.max_entries):
            known.put(struct.pack("=II", *place), b"\x01")

    def _attach(self) -> None:
        cgroup = self.scope.cgroup or cgroup2_mount()
        self._object.attach("state_changed")
        try:
            self._object.attach("write_returned")
            self._writes_seen = True
        except ProgramRejected:
            self._writes_seen = False
            self._notes.append(
                "this kernel has no sock_send_length tracepoint (6.3): when programs wrote is inferred"
            )
        self._object.attach_cgroup("sent", cgroup)
        self._object.attach_cgroup("received", cgroup)

    def poll(self) -> int:
        """Take what the kernel has ready; gives the number of events."""
        taken = (self._ring.drain(), self._batches.drain().reshape(-1))
        for events in taken:
            if len(events):
                self._drained.append(events)
                self.events += len(events)
        return sum(map(len, taken))

    def finish(self) -> Recording:
        """Stop recording and give back everything that was seen."""
        seconds = time.monotonic() - self._started
        if self.full:
            self._notes.append(
                f"ended early after {seconds:.1f} s: {self.events:,} events is all that is kept; narrow the scope"
            )
        self._object.detach()
        self.poll()
        tails = np.frombuffer(self._object.map("sockets").values(), SOCKET_RECORD)
        events = (
            np.concatenate([*self._drained, *map(_tail, tails)])
            if self._drained or len(tails)
            else np.zeros(0, SEGMENT_EVENT)
        )
        flow_map = self._object.map("flows")
        flows = {int.from_bytes(key, "little"): _record(flow_map, key) for key in flow_map.keys()}  # noqa: SIM118 - no dict
        flow_count, shed, refused, unparsed, segment_count = struct.unpack(
            "=IIIIQ", self._object.map(".bss").get(b"\0" * 4) or b""
        )
        lost = {number for number, flow in flows.items() if flow["lost"] or flow["hash"] < shed}
        if refused:
            self._notes.append(f"{refused} sockets found no room in the recorder and are not in any sum")
        if lost:
            self._notes.append(
                f"the buffer overflowed: {len(lost)} of {flow_count} sockets were left out whole"
            )
        if unparsed:
            self._notes.append(f"{unparsed} packets with IPv6 extension headers were not read")
        unfinished = {int(tail["flow"]): tail for tail in tails}
        minimum = _min_rtts(events)
        sockets = tuple(
            self._facts(number, flow, unfinished.get(number), minimum.get(number, 0), shed=number in lost)
            for number, flow in flows.items()
        )
        return Recording(
            _segments(events),
            sockets,
            seconds,
            source="live",
            notes=tuple(self._notes),
            writes_seen=self._writes_seen,
            segment_count=segment_count,
            shed_flows=len(lost),
        )

    def _facts(self, number: int, flow: Any, tail: Any | None, min_rtt_us: int, *, shed: bool) -> SocketFacts:
        pid, inode = int(flow["pid"]), int(flow["netns"])
        measured = [value for value in (int(flow["min_rtt_us"]), min_rtt_us) if 0 < value < NO_RTT]
        command = bytes(flow["command"]).split(b"\0")[0].decode(errors="replace")
        local, mapped = ip_address(flow["family"], flow["local_address"])
        remote, _ = ip_address(flow["family"], flow["remote_address"])
        return SocketFacts(
            flow=number,
            local=Endpoint(local, int(flow["local_port"])),
            remote=Endpoint(remote, int(flow["remote_port"])),
            is_client=bool(flow["role"] == ROLE_CLIENT),
            role_seen=bool(flow["role_seen"]),
            owner=Owner(
                inode,
                self._names.get(inode),
                pid or None,
                command or None,
                container_of_cgroup(int(flow["cgroup_id"])),
            ),
            fast=FastExchanges(
                int(flow["exchanges"]),
                int(flow["handshake_ns"]),
                int(flow["request_ns"]),
                int(flow["wait_ns"]),
                int(flow["response_ns"]),
            ),
            bytes_sent=int(flow["bytes_sent"]) + (int(tail["bytes_sent"]) if tail is not None else 0),
            bytes_received=int(flow["bytes_received"])
            + (int(tail["bytes_received"]) if tail is not None else 0),
            min_rtt_ns=min(measured, default=0) * 1000,
            mptcp=bool(flow["mptcp"]),
            mapped=mapped,
            shed=shed,
        )


def _ephemeral_ports() -> tuple[int, int]:
    """The first and the last port that this host gives to clients."""
    first, last = (sysctl.read(current(), "net.ipv4.ip_local_port_range") or "32768 60999").split()
    return int(first), int(last)


def _record(flows: Map, key: bytes) -> Any:
    return np.frombuffer(flows.get(key) or b"", FLOW_RECORD)[0]


def _tail(record: Any) -> NDArray[Any]:
    """The events of an exchange that had not ended when the watch did."""
    kept: NDArray[Any] = record["ring"][: min(int(record["count"]), len(record["ring"]))]
    return kept[:0] if record["lost"] else kept


def ip_address(
    family: int, raw: NDArray[np.uint8]
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, bool]:
    """An address as a BPF record keeps it, and whether it is an IPv4 one that a socket of IPv6 knows as mapped."""
    if family != AF_INET6:
        return ipaddress.IPv4Address(raw[:4].tobytes()), False
    address = ipaddress.IPv6Address(raw.tobytes())
    return (address.ipv4_mapped, True) if address.ipv4_mapped else (address, False)


def _min_rtts(events: NDArray[Any]) -> dict[int, int]:
    known = events[(events["min_rtt_us"] > 0) & (events["min_rtt_us"] < NO_RTT)]
    if not len(known):
        return {}
    lowest = np.full(int(known["flow"].max()) + 1, NO_RTT, np.int64)
    np.minimum.at(lowest, known["flow"], known["min_rtt_us"])
    present = np.unique(known["flow"])
    return dict(zip(present.tolist(), lowest[present].tolist(), strict=True))


def _segments(events: NDArray[Any]) -> Segments:
    """Recorder events as rows of the common table; ends and directions are filled in when flows are joined."""
    rows = np.zeros(len(events), SEGMENT)
    for name in SEGMENT_EVENT.names or ():
        rows[name] = events[name]
    rows["has_state"] = True
    rows["vantage"] = Vantage.CLIENT
    return rows
