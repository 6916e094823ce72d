"""The process that takes a pin's rule and table back when the process that pinned has ended, by kill -9 too.

``python -m ackward.remedies.pin.keeper OWNER START-TIME RECEIPT-FILE`` sleeps on the owner's pidfd and imports little
until then; if the receipt goes first, it has nothing left to do. Killed, it leaves rule and table, which serve no
socket once the owner has ended; `ackward status` says so.
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from ackward.errors import AckwardError
from ackward.kernel import background
from ackward.kernel.background import Process
from ackward.kernel.inotify import DEPARTURES, Watch

#: How a keeper is told from other processes: its own module, in its command line.
MODULE = "ackward.remedies.pin.keeper"


def start(owner: Process, receipt: Path) -> Process:
    """Start the keeper of a process's pins."""
    return background.start(
        MODULE,
        str(owner.pid),
        str(owner.start_time),
        str(receipt),
        purpose="takes the pin back when this one has ended",
    )


def running(receipt_or_directory: Path) -> list[Process]:
    """Keepers of a receipt, or of any in a directory; never this process itself."""
    found = background.running(MODULE, receipt_or_directory)
    return [process for process, _ in found if process.pid != os.getpid()]


def _wait_for_the_end(owner: Process, receipt: Path) -> None:
    """Sleep until the owner has ended, or the receipt has gone: undone where the namespace went before its owner."""
    try:
        handle = os.pidfd_open(owner.pid)
    except ProcessLookupError:
        return
    awake = select.poll()
    awake.register(handle, select.POLLIN)
    with ExitStack() as stack:
        stack.callback(os.close, handle)
        with suppress(OSError):  # no inotify instance is left: then the owner's end alone counts
            departures = stack.enter_context(Watch(DEPARTURES))
            departures.add(receipt.parent)
            awake.register(departures.fileno(), select.POLLIN)
        # The handle is taken, so the PID cannot be given to another after this check.
        while background.lives(owner) and receipt.exists():
            if any(descriptor == handle for descriptor, _ in awake.poll()):
                return
            departures.drain()


def keep(owner: Process, path: Path) -> int:
    """Wait for the owner's end, then undo; gives the exit code."""
    _wait_for_the_end(owner, path)
    from ackward import remedies
    from ackward.remedies.receipts import Receipts

    store = Receipts(path.parent)
    try:
        receipt = store.get(path.stem)
        outcome = remedies.load(receipt.remedy).undo(receipt, store)
    except AckwardError as error:  # undone by hand meanwhile, or else it stays in `ackward status`
        return error.exit_code
    return 0 if outcome.complete else 4


if __name__ == "__main__":
    background.detach()
    sys.exit(keep(Process(int(sys.argv[1]), int(sys.argv[2])), Path(sys.argv[3])))
