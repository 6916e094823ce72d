"""Scopes of single sockets, as people write them: ports, a destination, a cgroup, a process; and where they are."""

from __future__ import annotations

from pathlib import Path

from ackward.errors import AckwardError, Refused, UnknownName, UsageError
from ackward.kernel.background import start_time_of
from ackward.kernel.namespaces import Namespace, current, resolve
from ackward.kernel.probes import cgroup2_mount, cgroup_directory
from ackward.loop.port_ranges import port_range
from ackward.loop.watching import scope_of
from ackward.model.scopes import SocketScope
from ackward.remedies.route_metrics.plan import network

_UNCHANGED = "nothing was changed"


def socket_scope(
    *,
    port: int | str | None = None,
    to: str | None = None,
    cgroup: str | None = None,
    pid: int | None = None,
) -> SocketScope:
    """The scope that the arguments ask for, looked up on this machine; all that are given must apply to a connection.

    ``port`` is one or a range ``"7000-7010"``. Raises :class:`UsageError`, for no argument at all :class:`Refused`.
    """
    if (port, to, cgroup, pid) == (None, None, None, None):
        raise Refused(
            "no scope is named, and nothing is changed for all connections by default",
            consequence=_UNCHANGED,
            next_step="name --port, --to, --cgroup or --pid (`--port 1-65535` means all)",
        )
    try:
        looked_up = scope_of(cgroup=cgroup)
        started = start_time_of(pid) if pid is not None else None
        if pid is not None and started is None:
            raise UnknownName(
                f"there is no process {pid}", consequence=_UNCHANGED, next_step="look it up with `pgrep`"
            )
        return SocketScope(
            ports=port_range(str(port)) if port is not None else None,
            to=str(network(to)) if to is not None else None,
            cgroup=_in_hierarchy(looked_up.cgroup) if looked_up.cgroup else None,
            pid=pid,
            start_time=started,
        )
    except AckwardError as error:
        error.consequence = _UNCHANGED
        raise


def _in_hierarchy(cgroup: Path) -> str:
    """The path as /proc/PID/cgroup has it."""
    below = cgroup.resolve().relative_to(cgroup2_mount()).as_posix()
    return "/" if below == "." else f"/{below}"


def namespace_of(netns: str | None, scope: SocketScope) -> Namespace:
    """The namespace named, else that of the scope's process or of all processes of its cgroup, else the current one."""
    if netns is not None:
        return resolve(netns)
    if scope.pid is not None:
        return resolve(str(scope.pid))
    if scope.cgroup is None:
        return current()
    found = {
        place.inode: place for pid in _processes(cgroup_directory(scope.cgroup)) if (place := _place(pid))
    }
    if len(found) > 1:
        names = ", ".join(sorted(place.name.removeprefix("pid:") for place in found.values()))
        raise UsageError(
            f"the processes of the cgroup {scope.cgroup} are in {len(found)} network namespaces",
            consequence=_UNCHANGED,
            next_step=f"name one with --netns: {names}",
        )
    return next(iter(found.values()), current())


def _processes(cgroup: Path) -> list[str]:
    found: list[str] = []
    for place in (cgroup / "cgroup.procs", *cgroup.glob("**/cgroup.procs")):
        try:
            found += place.read_text(encoding="ascii").split()
        except OSError:
            continue  # removed meanwhile, or a threaded cgroup: its processes stand in the one above (cgroups(7))
    return [pid for pid in found if pid != "0"]  # 0: of another PID namespace


def _place(pid: str) -> Namespace | None:
    try:
        return resolve(pid)
    except AckwardError:
        return None  # ended meanwhile
