"""Persistence: units of ours in systemd's directory, written, read back and removed."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from ackward.errors import Unavailable
from ackward.kernel.background import of_first_process
from ackward.kernel.systemd import Systemd
from ackward.model.changes import Persisted
from ackward.model.plan import Ending, Look, Persistent, Plan, State, Undone
from ackward.remedies.lasting import unit
from ackward.remedies.receipts import Receipts


def executable() -> Path:
    """The command line's own program: the one that runs now, or the one beside the interpreter that does."""
    program = Path(sys.argv[0])
    beside = Path(sys.executable).with_name("ackward")
    return program.resolve() if program.name == beside.name and program.exists() else beside


def request_of(plan: Plan, systemd: Systemd) -> tuple[str, ...]:
    """The words that ask for the plan again; raises an error if nothing could ask for it at boot."""
    first = of_first_process()
    request = unit.request_of(plan, first.inode if first else None)
    if not systemd.is_there:
        line = shlex.join(unit.start_command(str(executable()), request)[:-1])
        raise Unavailable(
            "--persist: systemd does not run here",
            consequence="nothing was changed",
            next_step=f"apply it without --persist, and let what starts this machine run `{line}`",
        )
    if not executable().exists():
        raise Unavailable(
            f"--persist: {executable()} is not there",
            consequence="a unit would have nothing to run; nothing was changed",
            next_step="install ackward with its command line",
        )
    return request


def all_units(systemd: Systemd) -> list[Persistent]:
    """All units of ours."""
    found: list[Persistent] = []
    if not systemd.is_there:
        return found
    for path in sorted(systemd.units.glob("ackward-*.service")):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # removed meanwhile, or a link into nothing: not written by us
        if parsed := unit.parse(path, text):
            found.append(parsed)
    return found


def without_receipt(store: Receipts) -> list[Persistent]:
    """The units whose remedy is not in force: stopped, failed at boot, or their receipt was lost."""
    in_force = {receipt.id for receipt in store.load().receipts}
    return [persistent for persistent in all_units(store.systemd) if persistent.id not in in_force]


def asking_for(request: tuple[str, ...], store: Receipts) -> Persistent | None:
    """The unit that asks for just this, if there is one without a receipt."""
    return next((found for found in without_receipt(store) if found.request == request), None)


def planned(receipt_id: str, request: tuple[str, ...], store: Receipts) -> Persisted:
    """The change that makes a receipt's remedy persistent."""
    path = store.systemd.units / unit.file_name(receipt_id)
    return Persisted(unit=str(path), text=unit.render(receipt_id, request, str(executable())))


def make(change: Persisted, systemd: Systemd) -> None:
    """Write the unit and enable it. It is not started: what it would do is done."""
    path = Path(change.unit)
    if not path.exists() or path.read_text(encoding="utf-8") != change.text:
        _write(path, change.text)
    if not _links(path):
        systemd.control("enable", path.name)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Unavailable(
            f"the unit {path} cannot be written ({error.strerror})",
            consequence="it would not come back at boot; nothing stays changed",
            next_step="make room there, or leave out --persist",
        ) from error


def _links(path: Path) -> list[Path]:
    """What enables a unit: links that the targets want, also if they lead to nothing."""
    links = [wants / path.name for wants in path.parent.glob("*.wants")]
    return [link for link in links if link.is_symlink()]


def look(change: Persisted) -> Look:
    """The unit, read back."""
    path = Path(change.unit)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Look(state=State.GONE, words=f"unit {path} is gone: it does not come back at boot")
    if not _links(path):
        return Look(state=State.GONE, words=f"unit {path} is not enabled: it does not come back at boot")
    if text != change.text:
        return Look(state=State.CHANGED, words=f"unit {path} is not as we wrote it")
    return Look(state=State.IN_FORCE, words=f"unit {path} is enabled")


def unmake(change: Persisted, systemd: Systemd) -> Undone:
    """Disable the unit and remove it, also if somebody edited it: it is ours by its name."""
    path = Path(change.unit)
    there = path.exists()
    if there:
        systemd.control("disable", path.name)
        path.unlink()
    for link in _links(path):
        link.unlink(missing_ok=True)  # of a unit whose file somebody removed
        there = True
    if there and systemd.runs:
        systemd.control("daemon-reload")
        # Without its file it has no ExecStop any more: it only ceases to count as active.
        systemd.ask("stop", "--no-block", path.name)
    ending = Ending.UNDONE if there else Ending.NOTHING
    return Undone(ending=ending, words=f"{ending.value}: {change.words}")


def withdraw(persistent: Persistent, systemd: Systemd) -> Undone:
    """Remove a unit that has no receipt."""
    return unmake(Persisted(unit=persistent.unit, text=""), systemd)
