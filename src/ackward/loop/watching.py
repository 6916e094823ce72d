"""See and explain: record live sockets for a while, then diagnose what was recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ackward.capture.live import LiveCapture, Scope
from ackward.diagnosis.diagnose import Diagnosis, diagnose
from ackward.errors import UnknownName, UsageError
from ackward.kernel import namespaces
from ackward.kernel.probes import cgroup2_mount
from ackward.loop import pods
from ackward.loop.port_ranges import one_port
from ackward.model.segments import Recording

#: How often the buffer is emptied: at 16 MiB it would take 2.3 million events a second to overflow.
POLL_SECONDS = 0.1

Progress = Callable[[float, int], None]  # seconds gone, events taken


def scope_of(
    *,
    port: int | None = None,
    netns: str | None = None,
    pid: int | None = None,
    cgroup: str | None = None,
    slow_ns: int = 1_000_000,
) -> Scope:
    """What a user named, looked up on this machine; raises an error that says which name means nothing here."""
    one_port(port)
    place = namespaces.resolve(netns) if netns else None
    if pid is not None:
        if not Path(f"/proc/{pid}").exists():
            raise UnknownName(
                f"there is no process {pid}",
                consequence="nothing was watched",
                next_step="look it up with `pgrep`",
            )
        place = place or namespaces.resolve(str(pid))
    return Scope(port, place, _cgroup(cgroup) if cgroup else None, slow_ns)


def _cgroup(spec: str) -> Path:
    mount = cgroup2_mount()
    path = Path(spec) if spec.startswith(str(mount)) else mount / spec.lstrip("/")
    if (path / "cgroup.controllers").exists():
        return path
    if Path(spec).is_dir():
        raise UsageError(
            f"{spec} is not in the cgroup v2 hierarchy",
            consequence="nothing was watched",
            next_step=f"name a path below {mount}",
        )
    raise UnknownName(
        f"there is no cgroup {spec}", consequence="nothing was watched", next_step=f"look below {mount}"
    )


def watch(
    seconds: float = 10.0,
    *,
    port: int | None = None,
    netns: str | None = None,
    pid: int | None = None,
    cgroup: str | None = None,
    pod: str | None = None,
    slow_ns: int = 1_000_000,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Watch live sockets for ``seconds`` (or until ``stop``) and explain where their time went.

    ``slow_ns``: exchanges that took at least this long are recorded event by event, faster ones are counted; 0 records
    all. ``netns`` is a name, a PID or a path; ``cgroup`` a path below the v2 hierarchy. ``pod`` is
    NAMESPACE/NAME of one that runs here; its findings name pod, container and node.
    """
    if not seconds > 0:
        raise UsageError(
            f"a watch of {seconds:g} s sees nothing",
            consequence="nothing was watched",
            next_step="name a longer time, for example 10s",
        )
    scope = scope_of(port=port, netns=netns, pid=pid, cgroup=cgroup, slow_ns=slow_ns)
    place = None
    if pod is not None:
        place = pods.resolve(pod, netns, pid, cgroup)
        scope = pods.scope_of(place, scope)
    recording = record(scope, seconds, stop or threading.Event(), progress)
    if place is not None:
        recording = pods.named(recording, place)
    return diagnose(recording if pid is None else only_of(recording, pid))


def record(
    scope: Scope, seconds: float, stop: threading.Event, progress: Progress | None = None
) -> Recording:
    """Run the recorder over ``scope``."""
    with LiveCapture(scope, namespaces.in_sight()) as capture:
        began = time.monotonic()
        while (gone := time.monotonic() - began) < seconds and not stop.is_set() and not capture.full:
            if progress:
                progress(gone, capture.events)
            stop.wait(min(POLL_SECONDS, seconds - gone))
            capture.poll()
        return capture.finish()


def only_of(recording: Recording, pid: int) -> Recording:
    """The sockets of one process and the other ends of its connections."""
    mine = [socket for socket in recording.sockets if socket.owner.pid == pid]
    names = {(socket.local, socket.remote) for socket in mine} | {
        (socket.remote, socket.local) for socket in mine
    }
    return replace(
        recording,
        sockets=tuple(socket for socket in recording.sockets if (socket.local, socket.remote) in names),
    )
