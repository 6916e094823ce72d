"""See events as they happen: each delayed ACK, held write, probe and change of quick ACKs, one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator

from ackward.capture.tracing import TraceSource
from ackward.diagnosis.tracing import told
from ackward.errors import UsageError
from ackward.kernel.background import start_time_of
from ackward.loop.watching import scope_of
from ackward.model.trace import LostEvent, TraceEvent

#: How long a call waits for events before it looks whether it should end.
_POLL_SECONDS = 0.1


def trace(
    seconds: float | None = None,
    *,
    port: int | None = None,
    netns: str | None = None,
    pid: int | None = None,
    cgroup: str | None = None,
    slow_ns: int = 1_000_000,
    every_ack: bool = False,
    count: int | None = None,
    stop: threading.Event | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Generator[TraceEvent]:
    """Events of live sockets as they happen, for ``seconds`` (null: for ever), until ``stop`` or ``count`` of them.

    ``slow_ns``: ACKs and held writes that waited less are left out, fired timers never. ``every_ack``: all of them,
    with armed timers and each step of quick, pingpong and ato. ``note`` is told what the reader should know:
    that the trace has begun, and what this kernel hides. Close the iterator (``contextlib.closing``) to detach at once.
    """
    if seconds is not None and not seconds > 0:
        raise UsageError(
            f"a trace of {seconds:g} s sees nothing",
            consequence="nothing was traced",
            next_step="name a longer time, for example 10s",
        )
    if count is not None and count < 1:
        raise UsageError(
            f"--count {count} would tell nothing",
            consequence="nothing was traced",
            next_step="name 1 or more",
        )
    scope = scope_of(port=port, netns=netns, pid=pid, cgroup=cgroup, slow_ns=slow_ns)
    return _events(
        TraceSource(scope, every_ack=every_ack), seconds, pid, count, stop or threading.Event(), note
    )


def _events(
    source: TraceSource,
    seconds: float | None,
    pid: int | None,
    count: int | None,
    stop: threading.Event,
    note: Callable[[str], None],
) -> Generator[TraceEvent]:
    noted = given = 0
    gone = False
    began = None if pid is None else start_time_of(pid)
    with source:
        note("tracing")
        end = time.monotonic() + (float("inf") if seconds is None else seconds)
        over = False
        while not over:
            left = end - time.monotonic()
            over = left <= 0 or stop.is_set()  # what happened until now is still told
            raw = source.wait(0 if over else min(_POLL_SECONDS, left))
            if pid is not None:
                raw = raw[raw["end"]["pid"] == pid]
                if not gone and (began is None or start_time_of(pid) != began):
                    gone = True
                    note(f"process {pid} has ended: what its connections still do is told")
            for event in told(raw, source.realtime_ns(), source.identify):
                yield event
                given += 1
                if given == count:
                    return
            if lost := source.lost():
                yield LostEvent(time_ns=time.time_ns(), count=lost)
            for words in source.notes[noted:]:
                note(words)
            noted = len(source.notes)
