"""The source of the trace: attaches trace.bpf.c, waits for its events, and knows whose socket each one is of."""

from __future__ import annotations

import functools
import select
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ackward.capture.live import Scope, ip_address
from ackward.capture.trace_layout import TRACE_EVENT
from ackward.errors import ProgramRejected
from ackward.kernel.libbpf import Object
from ackward.kernel.namespaces import in_sight
from ackward.kernel.probes import cgroup2_mount
from ackward.kernel.processes import container_of_cgroup
from ackward.model.report import Process
from ackward.model.segments import Endpoint
from ackward.model.trace import TracedEnd

PROGRAM = Path(__file__).with_name("trace.bpf.o")
#: Owners that are kept looked up; looking one up again costs microseconds.
_KNOWN_ENDS = 4096
#: Namespaces are looked for again at most this often: new ones appear, and /proc is long.
_LOOK_AGAIN_SECONDS = 1.0
#: How far the wall clock may drift from the monotonic one before that counts: less than tcpdump and a hook are apart.
_CLOCK_SLACK_NS = 5_000


class TraceSource:
    """A running trace. Use as a context manager; :meth:`wait` gives what has happened, soon after it has.

    ``every_ack``: each ACK whose data had to wait at all, each armed timer and each change of quick, pingpong and ato,
    instead of those that took ``scope.slow_ns`` and those that turned quick ACKs on or off.
    """

    def __init__(self, scope: Scope, *, every_ack: bool = False) -> None:
        self.scope, self.every_ack = scope, every_ack
        self.notes: list[str] = []
        self._lost_told = self._realtime_ns = 0
        self._names: dict[int, str] = {}
        self._looked = float("-inf")
        self._end = functools.lru_cache(maxsize=_KNOWN_ENDS)(self._decoded)

    def __enter__(self) -> Self:
        from ackward.kernel.ring import Ring

        self._object = Object(PROGRAM, purpose="live sockets cannot be traced")
        try:
            settings = struct.pack(
                "=QIHBB",
                self.scope.slow_ns,
                self.scope.netns.inode if self.scope.netns else 0,
                self.scope.port or 0,
                self.every_ack,
                0,
            )
            self._object.set_section(".rodata", settings)
            self._object.resize("events", self.scope.buffer_bytes)
            if not self.every_ack:
                self._object.leave_out("trace_timer_started")
            self._object.load()
            self._attach()
            events = self._object.map("events")
            self._ring = Ring(events, TRACE_EVENT)
            self._arrivals = select.poll()
            self._arrivals.register(events.fd, select.POLLIN)
            self._totals = self._object.map(".bss")
        except BaseException:
            self._object.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ring.close()
        self._object.close()

    def _attach(self) -> None:
        cgroup = self.scope.cgroup or cgroup2_mount()
        for program in ("trace_closed", "trace_read"):
            self._object.attach(program)
        try:
            self._object.attach("trace_written")
        except ProgramRejected:
            self.notes.append(
                "this kernel has no sock_send_length tracepoint (6.3): writes held from the start are not seen"
            )
        if self.every_ack:
            self._object.attach("trace_timer_started")
        self._object.attach_cgroup("trace_sent", cgroup)
        self._object.attach_cgroup("trace_received", cgroup)

    def wait(self, seconds: float) -> NDArray[Any]:
        """The events since the last call; waits for the first one, at most ``seconds``."""
        self._arrivals.poll(seconds * 1000)
        return self._ring.drain()

    def realtime_ns(self) -> int:
        """What to add to the events' CLOCK_MONOTONIC to get CLOCK_REALTIME, to a few microseconds.

        It stays the same until the clock was set, so that one moment has one number in all events.
        """
        offset = _realtime_offset_ns()
        if abs(offset - self._realtime_ns) > _CLOCK_SLACK_NS:
            self._realtime_ns = offset
        return self._realtime_ns

    def lost(self) -> int:
        """How many events found no room since the last call. Notes of sockets without room are added on the way."""
        lost, _, refused, unparsed = struct.unpack("=QIII4x", self._totals.get(b"\0" * 4) or b"")
        for count, words in (
            (refused, "some sockets found no room in the trace: none of their events are told"),
            (unparsed, "packets with IPv6 extension headers were not read"),
        ):
            if count and words not in self.notes:
                self.notes.append(words)
        since, self._lost_told = lost - self._lost_told, lost
        return int(since)

    def identify(self, end: Any) -> TracedEnd:
        """Whose socket a record's ``end`` is."""
        return self._end(end.tobytes())

    def _decoded(self, raw: bytes) -> TracedEnd:
        end = np.frombuffer(raw, TRACE_EVENT["end"])[0]
        inode = int(end["netns"])
        local, remote = (
            Endpoint(ip_address(end["family"], end[f"{side}_address"])[0], int(end[f"{side}_port"]))
            for side in ("local", "remote")
        )
        command = bytes(end["command"]).split(b"\0")[0].decode(errors="replace")
        process = Process(
            pid=int(end["pid"]) or None,
            command=command or None,
            container=container_of_cgroup(int(end["cgroup_id"])),
            netns=self._name_of(inode),
        )
        return TracedEnd(local, remote, inode, process)

    def _name_of(self, inode: int) -> str | None:
        if inode not in self._names and time.monotonic() - self._looked > _LOOK_AGAIN_SECONDS:
            self._names |= {namespace.inode: namespace.name for namespace in in_sight()}
            self._looked = time.monotonic()
        return self._names.get(inode)


def _realtime_offset_ns() -> int:
    """CLOCK_REALTIME less CLOCK_MONOTONIC, from the quickest of three readings: one may be interrupted."""
    readings = []
    for _ in range(3):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        real = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        readings.append((after - before, real - (before + after) // 2))
    return min(readings)[1]
