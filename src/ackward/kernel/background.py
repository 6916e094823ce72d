"""Small processes of ours that outlive the command: started, recognised by their command line, and ended.

Such a process is a module that runs as ``python -m MODULE ... RECEIPT-FILE`` and calls :func:`detach` when it is ready.
Standard library only: it stays at a few megabytes.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ackward.errors
from ackward.errors import PrivilegeMissing, Unavailable
from ackward.kernel.namespaces import Namespace, command_inside, resolve

#: Seconds until a new process must have said that it is ready.
_START_WITHIN = 60
#: Milliseconds that it has to end before it is killed: it holds nothing that could be lost.
_END_WITHIN = 2000
_READY = "ready"


@dataclass(frozen=True)
class Process:
    """A process. ``start_time`` is in clock ticks since boot and tells a PID that was given out again."""

    pid: int
    start_time: int


def python(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command line that runs a module of ours with nothing around it, and its environment."""
    root = Path(ackward.errors.__file__).parent.parent
    return [sys.executable, "-P", "-m", module, *arguments], {"PYTHONPATH": str(root), "PATH": os.defpath}


def start(module: str, *arguments: str, purpose: str) -> Process:
    """Start a process that survives this one and inherits nothing from it; returns when it is ready.

    It runs in the network namespace of the first process if that may be entered, so that it keeps no other one alive.
    Raises :class:`Unavailable` with ``purpose``, what the process would have done.
    """
    command, environment = python(module, *arguments)
    first = of_first_process()
    try:
        done = subprocess.run(
            command_inside(first, command) if first else command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=environment,
            timeout=_START_WITHIN,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_started(purpose, str(error)) from error
    words = done.stdout.split()
    if done.returncode != 0 or len(words) != 2 or words[0] != _READY:
        complaint = done.stderr.strip().splitlines()
        raise _not_started(purpose, complaint[-1] if complaint else "no answer")
    pid = int(words[1])
    start_time = start_time_of(pid)
    if start_time is None:
        raise _not_started(purpose, "it ended at once")
    return Process(pid, start_time)


def of_first_process() -> Namespace | None:
    """The network namespace of the first process; none if it may not be looked at (CAP_SYS_PTRACE)."""
    try:
        return resolve("1")
    except PrivilegeMissing:
        return None


def detach() -> None:
    """Inside the process: belong to nobody from now on, and tell the starter that all is ready."""
    child = os.fork()
    if child:
        sys.stdout.write(f"{_READY} {child}\n")
        sys.stdout.flush()
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)


def _not_started(purpose: str, why: str) -> Unavailable:
    return Unavailable(
        f"the process that {purpose} did not start ({why})",
        consequence="nothing stays changed",
        next_step="free some memory and try again",
    )


def start_time_of(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); none when the process has ended, reaped or not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in parentheses, may hold anything.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def noted(pid: int | None, start_time: int | None) -> Process | None:
    """The process as it was noted; none if its starter was killed before it could note it."""
    return None if pid is None or start_time is None else Process(pid, start_time)


def lives(process: Process | None) -> bool:
    """Whether exactly this process is alive."""
    return process is not None and start_time_of(process.pid) == process.start_time


def stop(process: Process) -> bool:
    """End exactly this process and wait until it has ended; false if it had ended already."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle is taken, so the PID cannot be given to another between this check and the signal.
        if not lives(process):
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
        f"the process {process.pid} does not end",
        consequence="it goes on with what it was started for",
        next_step="look at it with ps",
    )


def stop_all(process: Process | None, lost: Iterable[Process]) -> bool:
    """End the process that was noted, and those that were not: started by somebody who was killed before the note.

    False if there was none of them.
    """
    stopped = process is not None and stop(process)
    for one in lost:
        stopped |= stop(one)
    return stopped


def running(module: str, receipt_or_directory: Path) -> Iterator[tuple[Process, Sequence[str]]]:
    """The processes of a module, each with its arguments, for a receipt or for any in a directory."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = os.fsdecode((entry / "cmdline").read_bytes()).split("\0")[:-1]
            owner = entry.stat().st_uid
        except (FileNotFoundError, ProcessLookupError):
            continue
        if owner != os.geteuid() or module not in arguments:
            continue
        receipt = Path(arguments[-1])
        start_time = start_time_of(int(entry.name))
        if start_time is not None and receipt_or_directory in (receipt, receipt.parent):
            yield Process(int(entry.name), start_time), arguments
