"""What the tests of steering share: a cgroup, connections of it and beside it, and their options read from the kernel."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ackward.kernel import own_socket
from ackward.kernel.machine import PIDFD_GETFD
from ackward.kernel.namespaces import Namespace, call_inside
from ackward.kernel.questions import MOUNTS, mounts

#: A cgroup of this test run; :func:`cgroup` makes it.
CGROUP = (mounts(MOUNTS.read_text(), "cgroup2") or [Path("/sys/fs/cgroup")])[
    0
] / f"ackward-tests-{os.getpid()}"

IN_SCOPE, BESIDE = 7300, 7301

_open: dict[int, tuple[list[socket.socket], subprocess.Popen[bytes], list[int]]] = {}


@contextmanager
def cgroup() -> Iterator[Path]:
    """The cgroup, there for the time of a test; what failing tests left below it goes with it."""
    CGROUP.mkdir()
    try:
        yield CGROUP
    finally:
        for below in filter(Path.is_dir, CGROUP.iterdir()):
            below.rmdir()
        CGROUP.rmdir()


@contextmanager
def moved_into(place: Path) -> Iterator[None]:
    """This process is in that cgroup meanwhile: sockets that it makes belong to it for good."""
    own = next(
        line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")
    ).removeprefix("0::")
    (place / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (CGROUP.parent / own.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))


def pair(host: Namespace, address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new loopback connection: who connected, who accepted. IPv4-mapped addresses are IPv6's."""

    def connect() -> tuple[socket.socket, socket.socket]:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen()
            connecting = socket.create_connection((address, port), timeout=5)
            return connecting, listener.accept()[0]

    return call_inside(host, connect)


def nodelay(connection: socket.socket) -> bool:
    """Whether TCP_NODELAY is on."""
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


@contextmanager
def connections(host: Namespace) -> Iterator[None]:
    """An open connection in ``host`` that every scope of the contract holds, and one that none does.

    The first is of this process, in CGROUP, on port IN_SCOPE, over IPv4; the other is in all of these another's.
    """
    with ExitStack() as stack:
        with moved_into(CGROUP):
            ours = [stack.enter_context(end) for end in pair(host, "127.0.0.1", IN_SCOPE)]
        others = pair(host, "::1", BESIDE)
        numbers = [end.fileno() for end in others]
        holder = subprocess.Popen(["sleep", "600"], pass_fds=numbers)
        stack.callback(holder.wait)
        stack.callback(holder.kill)
        for end in others:
            end.close()
        _open[host.inode] = (ours, holder, numbers)
        stack.callback(_open.pop, host.inode)
        yield


Steered = tuple[bool, int, int | None]


def steered(connection: socket.socket) -> Steered:
    """All that steering may set: TCP_NODELAY, the mark, the longest delay of an ACK."""
    return nodelay(connection), own_socket.mark(connection), own_socket.delack_max_us(connection)


def options(host: Namespace) -> dict[str, list[Steered]]:
    """The options of those connections' ends; nothing for a host without."""
    if host.inode not in _open:
        return {}
    ours, holder, numbers = _open[host.inode]
    beside = [_copy(holder.pid, number) for number in numbers]
    try:
        return {"in scope": [steered(end) for end in ours], "beside": [steered(end) for end in beside]}
    finally:
        for end in beside:
            end.close()


def _copy(pid: int, number: int) -> socket.socket:
    process = os.pidfd_open(pid)
    try:
        copy = ctypes.CDLL(None).syscall(PIDFD_GETFD, process, number, 0)
        assert copy >= 0
        return socket.socket(fileno=copy)
    finally:
        os.close(process)
