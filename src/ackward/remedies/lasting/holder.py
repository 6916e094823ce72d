"""The process that ends a leased remedy where there is no systemd.

``python -m ackward.remedies.lasting.holder ENDS-BOOTTIME-NS RECEIPT-FILE`` sleeps until its time is up and then lets
:mod:`ackward.remedies.lasting.expiry` take the remedy back, in a process of its own: the undo may end this one. It
imports the standard library only. It sleeps in one system call, so it costs nothing but its memory.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

from ackward.kernel import background

#: How a holder is told from other processes: its own module, in its command line.
MODULE = "ackward.remedies.lasting.holder"
EXPIRY = "ackward.remedies.lasting.expiry"
#: Beside the receipts: what was ended, and what could not be.
LOG = "leases.log"
#: Seconds until an undo that failed is tried again: whatever was in its way may be gone by then.
_AGAIN = 60
_TIMER_ABSTIME = 1  # include/uapi/linux/time.h


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def sleep_until(boottime_ns: int) -> None:
    """Sleep until CLOCK_BOOTTIME says so: it counts the time that the machine sleeps, and nobody can set it."""
    moment = _Timespec(*divmod(boottime_ns, 1_000_000_000))
    libc = ctypes.CDLL(None)
    while (
        number := libc.clock_nanosleep(time.CLOCK_BOOTTIME, _TIMER_ABSTIME, ctypes.byref(moment), None)
    ) == errno.EINTR:
        pass
    if number:
        raise OSError(number, os.strerror(number))


def hold(ends_boottime_ns: int, receipt: Path) -> None:
    """Wait, then end what the receipt speaks of; again and again as long as it is there and its time is up."""
    while True:
        sleep_until(ends_boottime_ns)
        command, environment = background.python(EXPIRY, str(receipt))
        if not receipt.exists():
            return  # undone by hand, or never written
        with (receipt.parent / LOG).open("ab") as log:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, check=False
            )
        if done.returncode == 0:
            return
        ends_boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + _AGAIN * 1_000_000_000


if __name__ == "__main__":
    background.detach()
    hold(int(sys.argv[1]), Path(sys.argv[2]))
