"""The one door to network namespaces: find them, enter them, make and remove them.

``setns(2)`` changes one thread. Code that must run inside a namespace therefore runs in a thread of its own that
ends with the call (:func:`call_inside`), so no other thread ever finds itself elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from ackward.errors import PrivilegeMissing, Unavailable, UnknownName
from ackward.kernel import leftovers

NAMED = Path("/run/netns")
CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
#: Milliseconds that a killed process has to be gone.
_END_WITHIN = 2000

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Namespace:
    """A network namespace. ``inode`` is its number in ``/proc/PID/ns/net`` and identifies it while it lives."""

    name: str
    path: Path
    inode: int

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is in this namespace."""
        return self.inode == _inode_here()

    @property
    def is_there(self) -> bool:
        """Whether its path still leads to it."""
        try:
            return self.path.stat().st_ino == self.inode
        except OSError:
            return False


def _inode_here() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116 - asked for often, and twice as fast as a Path


def current() -> Namespace:
    """The calling thread's namespace. Where that is not the process's own, its path lives as long as the thread."""
    inode = _inode_here()
    path = Path("/proc/self/ns/net")  # a receipt names it: other processes find the namespace by it, too
    if path.stat().st_ino != inode:
        path = Path(f"/proc/self/task/{threading.get_native_id()}/ns/net")
    return Namespace(_name_of(inode) or "self", path, inode)


def _name_of(inode: int) -> str | None:
    for path in _named():
        try:
            if path.stat().st_ino == inode:
                return path.name
        except OSError:
            continue
    return None


def _named() -> list[Path]:
    try:
        return sorted(NAMED.iterdir())
    except FileNotFoundError:
        return []


def resolve(spec: str | None) -> Namespace:
    """The namespace that ``spec`` stands for: none or ``self``, a name in /run/netns, a PID, or a path.

    Raises :class:`UnknownName` if it stands for nothing here, :class:`PrivilegeMissing` if it may not be looked at.
    """
    if spec is None or spec == "self":
        return current()
    if spec.isdigit():
        path, name = Path(f"/proc/{spec}/ns/net"), f"pid:{spec}"
    elif "/" in spec:
        path, name = Path(spec), spec
    else:
        path, name = NAMED / spec, spec
    try:
        found = path.stat()
    except PermissionError as error:
        raise PrivilegeMissing.for_this_command(
            f"the network namespace of {spec} may not be read ({path})", consequence="nothing was done"
        ) from error
    except OSError as error:
        known = ", ".join(entry.name for entry in _named()) or "none"
        raise UnknownName(
            f"there is no network namespace {spec!r} ({path} does not exist)",
            consequence="nothing was done",
            next_step=f"name one of /run/netns ({known}), a PID or a path",
        ) from error
    if not spec.isdigit():
        # A plain file in /run/netns is a leftover of an unmounted namespace: nsfs has its own device.
        if found.st_dev != Path("/proc/self/ns/net").stat().st_dev:
            raise UnknownName(
                f"{path} is not a network namespace (nothing is mounted on it)",
                consequence="nothing was done",
                next_step=f"remove the leftover with `ip netns delete {spec}`"
                if "/" not in spec
                else "name another path",
            )
    else:
        name = _name_of(found.st_ino) or name
    return Namespace(name, path, found.st_ino)


def in_sight() -> list[Namespace]:
    """Each namespace that this process can see, through a name or a process, once; the current one first."""
    found = {current().inode: current()}
    for path in _named():
        try:
            namespace = resolve(path.name)
        except UnknownName:
            continue
        found.setdefault(namespace.inode, namespace)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            inode = (process / "ns/net").stat().st_ino
        except OSError:
            continue  # ended, or not ours to see
        found.setdefault(inode, Namespace(f"pid:{process.name}", process / "ns/net", inode))
    return list(found.values())


def _setns(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def call_inside(namespace: Namespace, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` inside ``namespace`` and give back what it returns or raises.

    Sockets that it opens stay in the namespace after the call.
    """
    if namespace.is_current:
        return function(*args, **kwargs)
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            _setns(namespace.path)
            outcome.append(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - carried over to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=body, name=f"inside {namespace.name}")
    thread.start()
    thread.join()
    if failure:
        error = failure[0]
        if isinstance(error, PermissionError) and error.filename == str(namespace.path):
            raise PrivilegeMissing.for_this_command(
                f"the namespace {namespace.name} may not be entered (CAP_SYS_ADMIN)",
                consequence="nothing was done",
            ) from error
        raise error
    return outcome[0]


def command_inside(namespace: Namespace, argv: list[str]) -> list[str]:
    """The command line that runs ``argv`` inside ``namespace`` (util-linux's nsenter)."""
    return argv if namespace.is_current else ["nsenter", f"--net={namespace.path}", "--", *argv]


@contextmanager
def temporary(label: str) -> Iterator[Namespace]:
    """A new, uniquely named namespace with its loopback up; gone again at the end."""
    name = leftovers.name(label)
    if os.geteuid() != 0:
        raise PrivilegeMissing.for_this_command(
            "making a network namespace needs root", consequence="nothing was done"
        )
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise Unavailable(
            f"`ip netns add` failed: {made.stderr.strip()}",
            consequence="no test hosts can be made",
            next_step="install iproute2 and run as root on a kernel with CONFIG_NET_NS",
        )
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True, capture_output=True)
        yield resolve(name)
    finally:
        _delete(name)


def remove_abandoned(namespace: Namespace) -> bool:
    """Take a temporary namespace whose maker was killed away, with all that is in it, processes included.

    False if it is none, or somebody else was quicker.
    """
    if not leftovers.is_left(namespace.name):
        return False
    _end_processes(namespace)
    try:
        _delete(namespace.name)
    except subprocess.CalledProcessError:
        return False
    return True


def _end_processes(namespace: Namespace) -> None:
    """Those that run there: without its name nobody would find them again, and it would live as long as they do."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with suppress(OSError):  # it has ended, or is the kernel's own
            handle = os.pidfd_open(int(process.name))
            try:
                # The handle is taken, so the PID cannot be given to another between this check and the signal.
                if (process / "ns/net").stat().st_ino == namespace.inode:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    ended = select.poll()
                    ended.register(handle, select.POLLIN)
                    ended.poll(_END_WITHIN)
            finally:
                os.close(handle)


def _delete(name: str) -> None:
    subprocess.run(["ip", "netns", "delete", name], check=True, capture_output=True)
