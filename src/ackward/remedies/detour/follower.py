"""Starts and recognises the process that lets a mirrored table follow main."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ackward.kernel import background
from ackward.kernel.background import Process
from ackward.kernel.namespaces import Namespace
from ackward.remedies.detour.lifeline import MODULE


def start(namespace: Namespace, table: int, receipt: Path) -> Process:
    """Start a follower; returns when it has copied main once. Raises :class:`~ackward.errors.Unavailable`."""
    # "self" is somebody else in another process.
    path = str(namespace.path).replace("/proc/self/", f"/proc/{os.getpid()}/")
    arguments = (path, str(namespace.inode), str(table), str(receipt))
    return background.start(MODULE, *arguments, purpose="lets the mirrored table follow main")


def running(receipt_or_directory: Path) -> Iterator[Process]:
    """Followers for a receipt, or for any in a directory, by their command line (if the PID was lost)."""
    return (process for process, _ in background.running(MODULE, receipt_or_directory))
