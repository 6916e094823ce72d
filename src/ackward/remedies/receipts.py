"""Where receipts live: one JSON file each, written whole or not at all, under one lock.

Laws: a receipt is on the disk before the first change it speaks of; no receipt is ever overwritten by another
apply; a file that cannot be read stops nobody from undoing the others; the lock file is there as long as somebody holds
the lock, the directory as long as something is in it.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import functools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ackward.errors import AckwardError, PrivilegeMissing, Unavailable, UnknownName
from ackward.kernel import directories
from ackward.kernel.systemd import Systemd
from ackward.model.changes import Change
from ackward.model.plan import NamespaceIdentity, Plan, Receipt, ReceiptState
from ackward.model.scopes import Scope
from ackward.remedies import NAMES

_OF_THE_MACHINE = Path("/run/ackward")
DIRECTORY = _OF_THE_MACHINE
_LOCK = "lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@functools.cache  # no process sees two
def boot_id() -> str:
    """The identity of this boot."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


@dataclass(frozen=True)
class Contents:
    """All that the store holds. ``damaged`` files are no receipts (truncated, garbage, of another schema)."""

    receipts: tuple[Receipt, ...]
    damaged: tuple[Path, ...]


class Receipts:
    """The store. Everything that writes runs inside :meth:`lock`.

    ``systemd`` keeps what outlives it: the machine's for the machine's own store, else one below the directory.
    """

    def __init__(self, directory: Path | None = None, systemd: Systemd | None = None) -> None:
        self.directory = directory or DIRECTORY
        self.systemd = systemd or (
            Systemd() if self.directory == _OF_THE_MACHINE else Systemd(self.directory)
        )

    def path(self, receipt_id: str) -> Path:
        """The file of one receipt."""
        return self.directory / f"{receipt_id}.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other apply and undo out; the kernel lets go when the holder dies."""
        handle = self._locked()
        try:
            for leftover in self.directory.glob(".*.partial"):
                leftover.unlink()  # of a writer that was killed: a living one would hold the lock
            yield
        finally:
            self._leave()
            os.close(handle)

    def _locked(self) -> int:
        """The descriptor of the lock file, locked."""
        while True:
            try:
                handle = directories.inside(self.directory, self._open_lock)
            except OSError as error:
                raise self._unwritable(error) from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if os.fstat(handle).st_nlink:
                    return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # who held it took it away, and the next may hold another by now

    def _open_lock(self) -> int:
        return os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _leave(self) -> None:
        """Take the lock file away, and the directory if nothing else is there; only who holds the lock may."""
        with suppress(OSError):
            (self.directory / _LOCK).unlink()
        directories.leave(self.directory)

    def load(self) -> Contents:
        """All receipts, oldest first, and the files that are none."""
        receipts: list[Receipt] = []
        damaged: list[Path] = []
        try:
            names = sorted(entry.name for entry in self.directory.iterdir() if entry.suffix == ".json")
        except FileNotFoundError:
            return Contents((), ())
        except OSError as error:
            raise self._unreadable(error) from error
        for name in names:
            path = self.directory / name
            try:
                receipt = Receipt.model_validate_json(path.read_bytes())
            except FileNotFoundError:
                continue  # undone meanwhile
            except ValidationError:
                damaged.append(path)
            except OSError as error:
                raise self._unreadable(error) from error
            else:
                # A copy by hand would be undone twice; a remedy of another version cannot be undone here.
                if self.path(receipt.id) == path and receipt.remedy in NAMES:
                    receipts.append(receipt)
                else:
                    damaged.append(path)
        return Contents(tuple(sorted(receipts, key=lambda receipt: receipt.created)), tuple(damaged))

    def get(self, receipt_id: str) -> Receipt:
        """One receipt; raises :class:`UnknownName`."""
        contents = self.load()
        for receipt in contents.receipts:
            if receipt.id == receipt_id:
                return receipt
        known = ", ".join(receipt.id for receipt in contents.receipts)
        raise UnknownName(
            f"there is no receipt {receipt_id!r}",
            consequence="nothing was undone",
            next_step=(
                f"name one of: {known}; `ackward status` shows them"
                if known
                else "none is needed: none is in force"
            )
            + (
                f"; unreadable: {', '.join(map(str, contents.damaged))} (`ackward undo --all`)"
                if contents.damaged
                else ""
            ),
        )

    def find(self, remedy: str, namespace: NamespaceIdentity, scope: Scope) -> Receipt | None:
        """The receipt of the same request in the same namespace and boot, if there is one."""
        for receipt in self.load().receipts:
            if (
                (receipt.remedy, receipt.scope, receipt.boot_id) == (remedy, scope, boot_id())
                and receipt.namespace.inode == namespace.inode
                and receipt.namespace.cookie == namespace.cookie
            ):
                return receipt
        return None

    def new_id(self, remedy: str) -> str:
        """An id that no receipt has."""
        while True:
            receipt_id = f"{remedy}-{secrets.token_hex(3)}"
            if not self.path(receipt_id).exists():
                return receipt_id

    def create(
        self, plan: Plan, receipt_id: str | None = None, changes: tuple[Change, ...] | None = None
    ) -> Receipt:
        """Write the receipt of a plan that is about to be applied; ``changes`` are the plan's unless there are more."""
        receipt = Receipt(
            id=receipt_id or self.new_id(plan.remedy),
            remedy=plan.remedy,
            created=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            boot_id=boot_id(),
            namespace=plan.namespace,
            scope=plan.scope,
            changes=plan.changes if changes is None else changes,
            state=ReceiptState.APPLYING,
        )
        self.write(receipt)
        return receipt

    def write(self, receipt: Receipt) -> None:
        """Put the receipt on the disk, whole: its own apply may tell more of it later (a PID, the state)."""
        partial = self.directory / f".{receipt.id}.partial"
        try:
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(receipt.model_dump_json(by_alias=True, indent=2).encode())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path(receipt.id))
            self._sync_directory()
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def remove(self, receipt: Receipt) -> None:
        """Forget a receipt that has been undone."""
        self.path(receipt.id).unlink(missing_ok=True)
        self._sync_directory()

    def set_aside(self, damaged: Path) -> Path:
        """Move an unreadable file out of the way, keeping it for whoever wants to look."""
        aside = self.directory / "damaged"
        try:
            aside.mkdir(mode=0o700, exist_ok=True)
            return damaged.replace(aside / f"{damaged.name}.{secrets.token_hex(3)}")
        except OSError as error:
            raise self._unwritable(error) from error

    def _sync_directory(self) -> None:
        handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _unwritable(self, error: OSError) -> AckwardError:
        if isinstance(error, PermissionError) and os.geteuid() != 0:
            return PrivilegeMissing.for_this_command(
                f"{self.directory} may not be written", consequence="without a receipt nothing is changed"
            )
        return Unavailable(
            f"no receipt can be written to {self.directory} ({error.strerror})",
            consequence="without a receipt nothing is changed",
            next_step=f"make {self.directory} a writable directory with some free space (in a pod: an emptyDir)",
        )

    def _unreadable(self, error: OSError) -> AckwardError:
        if isinstance(error, PermissionError):
            return PrivilegeMissing.for_this_command(
                f"{self.directory} may not be read", consequence="remedies in force cannot be listed"
            )
        return Unavailable(
            f"{error.filename or self.directory} cannot be read ({error.strerror})",
            consequence="remedies in force cannot be listed",
            next_step="look at it with `ls -l`; what is no receipt does not belong there",
        )
