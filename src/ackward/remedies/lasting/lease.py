"""Leases: what ends a remedy when its time is up, started, read back and ended."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ackward.errors import AckwardError
from ackward.kernel import background
from ackward.kernel.background import Process
from ackward.model.changes import Leased
from ackward.model.plan import Ending, Look, State, Undone
from ackward.remedies.lasting.holder import EXPIRY, MODULE
from ackward.remedies.receipts import Receipts

_TIMER = "ackward-lease-"


def left_ns(lease: Leased) -> int:
    """The nanoseconds that a lease has left."""
    return lease.ends_boottime_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def start(receipt_id: str, lease_ns: int, store: Receipts) -> Leased:
    """Start what will end the remedy; nobody needs to have written its receipt yet."""
    ends_boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + lease_ns
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(microseconds=lease_ns // 1000)
    lease = Leased(ends=ends.isoformat(timespec="milliseconds"), ends_boottime_ns=ends_boottime_ns)
    path = str(store.path(receipt_id))
    if not store.systemd.runs:
        holder = background.start(
            MODULE, str(ends_boottime_ns), path, purpose="ends the remedy when its time is up"
        )
        return lease.model_copy(update={"pid": holder.pid, "start_time": holder.start_time})
    # A renewed lease starts before the earlier one is ended: their timers need two names.
    timer = f"{_TIMER}{receipt_id}-{ends_boottime_ns:x}"
    command, environment = background.python(EXPIRY, path)
    setting = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items())]
    store.systemd.start_timer(timer, lease_ns / 1e9, [*setting, *command], f"end of {receipt_id}")
    return lease.model_copy(update={"timer": f"{timer}.timer"})


@contextmanager
def held(receipt_id: str, lease_ns: int | None, store: Receipts) -> Iterator[Leased | None]:
    """A lease around an apply or a renewal: if that fails and no receipt speaks of the lease, it is ended again."""
    if lease_ns is None:
        yield None
        return
    lease = start(receipt_id, lease_ns, store)
    try:
        yield lease
    except BaseException:
        if not any(receipt.lease == lease for receipt in store.load().receipts):
            end(lease, store)
        raise


def look(lease: Leased, store: Receipts) -> Look:
    """The lease, read back: how long it has left, and whether there is somebody to end it."""
    left = round(left_ns(lease) / 1e9)
    words = f"{left} s left" if left >= 0 else f"over since {-left} s"
    if _lives(lease, store):
        return Look(state=State.IN_FORCE, words=f"lease: {words} (until {lease.ends}, {lease.holder})")
    return Look(
        state=State.GONE,
        words=f"lease: {words}, but {lease.holder} is not there any more: nobody ends it. The same "
        "`ackward fix` with --lease renews it",
    )


def _lives(lease: Leased, store: Receipts) -> bool:
    if lease.timer:
        return store.systemd.ask("is-active", lease.timer) == "active" or (
            store.systemd.ask("is-active", lease.timer.replace(".timer", ".service")) == "activating"
        )
    return background.lives(background.noted(lease.pid, lease.start_time))


def end(lease: Leased, store: Receipts) -> Undone:
    """End what would have ended the remedy."""
    try:
        if lease.timer:
            there = _lives(lease, store)
            store.systemd.ask("stop", lease.timer)
        else:
            holder = background.noted(lease.pid, lease.start_time)
            there = holder is not None and background.stop(holder)
    except AckwardError as error:  # it asks the receipt before it does anything
        return Undone(ending=Ending.LEFT, words=f"{Ending.LEFT.value}: {lease.holder}: {error}")
    ending = Ending.UNDONE if there else Ending.NOTHING
    return Undone(ending=ending, words=f"{ending.value}: {lease.words}")


def sweep(store: Receipts) -> list[str]:
    """End the holders and timers that no receipt speaks of; gives them in words."""
    known = {receipt.lease.holder for receipt in store.load().receipts if receipt.lease}
    lost = [
        process
        for process in of_directory(store.directory)
        if f"pid {process.pid}" not in known and background.stop(process)
    ]
    swept = [f"process {process.pid}, which held a lease" for process in lost]
    if store.systemd.runs:
        listed = store.systemd.ask(
            "list-units", "--plain", "--no-legend", "--full", f"{_TIMER}*.timer"
        ).splitlines()
        for timer in (line.split()[0] for line in listed if line.split()):
            if timer not in known:
                store.systemd.ask("stop", timer)
                swept.append(f"{timer}, which held a lease")
    return swept


def of_directory(directory: Path) -> list[Process]:
    """The holders for receipts of a directory."""
    return [process for process, _ in background.running(MODULE, directory)]
