"""The BPF file system for tests: mounted if it is not, and taken away again by the last test run that needs it."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel.bpffs import BPFFS, OURS, require_bpffs

#: The source of our mount: tells it from one that was there.
_SOURCE = "ackward-tests"


def _is_mounted() -> bool:
    try:
        require_bpffs()
    except Unavailable:
        return False
    return True


@contextmanager
def bpf_file_system() -> Iterator[Path]:
    """Our directory in it. Test runs at the same time share it: each holds the lock of the directory above."""
    lock = os.open(BPFFS.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not _is_mounted():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_mounted():
                subprocess.run(["mount", "-t", "bpf", _SOURCE, str(BPFFS)], check=True)
            fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield OURS
        finally:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # another run goes on and takes it away
            else:
                if f"{_SOURCE} {BPFFS} bpf" in Path("/proc/self/mounts").read_text():
                    subprocess.run(["umount", str(BPFFS)], check=True)
    finally:
        os.close(lock)
