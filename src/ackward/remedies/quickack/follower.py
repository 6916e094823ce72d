"""Starts, recognises and ends the process that lets a mirrored table follow main."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ackward.errors
from ackward.errors import Unavailable
from ackward.kernel.namespaces import Namespace
from ackward.remedies.quickack.lifeline import MODULE
from ackward.remedies.quickack.mirror import READY

#: Seconds until a new follower must have copied main once; a large table takes a while.
_START_WITHIN = 60
#: Milliseconds that a follower has to end before it is killed: it holds nothing that could be lost.
_END_WITHIN = 2000


@dataclass(frozen=True)
class Follower:
    """A process. ``start_time`` is in clock ticks since boot and tells a PID that was given out again."""

    pid: int
    start_time: int


def start(namespace: Namespace, table: int, receipt: Path) -> Follower:
    """Start a follower that survives this process and inherits nothing from it; returns when it follows."""
    root = Path(ackward.errors.__file__).parent.parent
    command = [
        sys.executable,
        "-P",
        "-m",
        MODULE,
        _path(namespace),
        str(namespace.inode),
        str(table),
        str(receipt),
    ]
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env={"PYTHONPATH": str(root), "PATH": os.defpath},
            timeout=_START_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_started(str(error)) from error
    words = process.stdout.split()
    if process.returncode != 0 or len(words) != 2 or words[0] != READY:
        raise _not_started(process.stderr.strip().splitlines()[-1] if process.stderr.strip() else "no answer")
    pid = int(words[1])
    start_time = _start_time(pid)
    if start_time is None:
        raise _not_started("it ended at once")
    return Follower(pid, start_time)


def _path(namespace: Namespace) -> str:
    # "self" is somebody else in another process.
    return str(namespace.path).replace("/proc/self/", f"/proc/{os.getpid()}/")


def _not_started(why: str) -> Unavailable:
    return Unavailable(
        f"the process that lets the mirrored table follow main did not start ({why})",
        consequence="nothing stays changed",
        next_step="use the route scope (without --port), or free some memory and try again",
    )


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); none when the process has ended, reaped or not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in parentheses, may hold anything.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def lives(follower: Follower) -> bool:
    """Whether exactly this process is alive."""
    return _start_time(follower.pid) == follower.start_time


def stop(follower: Follower) -> bool:
    """End exactly this process and wait until it has ended; false if it had ended already."""
    try:
        handle = os.pidfd_open(follower.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle is taken, so the PID cannot be given to another between this check and the signal.
        if not lives(follower):
            return False
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(handle, number)
            if ended.poll(_END_WITHIN):
                return True
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)
    raise Unavailable(
        f"the process {follower.pid} does not end",
        consequence="it may fill its table again",
        next_step="look at it with ps",
    )


def running(receipt_or_directory: Path) -> Iterator[Follower]:
    """Followers for a receipt, or for any in a directory, by their command line (if the PID was lost)."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            owner = process.stat().st_uid
        except (FileNotFoundError, ProcessLookupError):
            continue
        if owner != os.geteuid() or MODULE.encode() not in arguments:
            continue
        receipt = Path(os.fsdecode(arguments[-2]))  # cmdline ends in a NUL
        start_time = _start_time(int(process.name))
        if start_time is not None and receipt_or_directory in (receipt, receipt.parent):
            yield Follower(int(process.name), start_time)
