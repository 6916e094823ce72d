"""Replace a file that others read and write, so that no reader sees half of it and no writer's words are lost.

The new text is whole in a file beside it before the two change places in one step. What came out in exchange is then
compared with what was read: if another writer was quicker, that one's text is the new beginning. A file that is still
being written counts when its writer has closed it: nobody else's descriptor may be open for writing when a read lease
is granted (fcntl(2), F_SETLEASE).
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ackward.errors import AckwardError, PrivilegeMissing, Refused, Unavailable
from ackward.kernel.inotify import exchange

#: Not taken for a configuration by any runtime (:data:`ackward.node.conflist.SUFFIXES`).
PARTIAL = ".ackward-partial"
#: How often others may be quicker before we let them be, and how long one may take to close what it writes.
_ATTEMPTS = 10
_CLOSED_WITHIN = 1.0


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> bool:
    """Give a file the text that ``change`` makes of its own; mode and owner stay. False: it was so already.

    Raises what ``change`` raises with the file untouched, FileNotFoundError if it is gone, :class:`Unavailable` if
    it cannot be written, :class:`Refused` if others write it all the time. A link stays: what it leads to is written.
    """
    path = Path(os.path.realpath(path))
    _clear(path)
    expected = path.read_bytes()
    wanted = change(expected)
    if wanted == expected:
        return False
    complaint: AckwardError | None = None
    for attempt in range(2 * _ATTEMPTS):
        found = _put(path, wanted)
        if found is None or found == expected:
            _sync(path.parent)
            if complaint:
                raise complaint
            return True
        # Another writer was quicker, and what it wrote has come out in exchange: go on from that.
        expected = wanted
        wanted, complaint = found, _busy(path)  # theirs goes back as it was, unless it can be changed too
        if attempt < _ATTEMPTS:
            try:
                wanted, complaint = change(found), None
            except AckwardError as error:
                complaint = error
    raise _busy(path)


def install(path: Path, content: bytes, mode: int) -> bool:
    """Put a file there whole; false if exactly that was there. Raises :class:`Unavailable`."""
    try:
        _clear(path)
        if path.read_bytes() == content and path.stat().st_mode & 0o7777 == mode:
            return False
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unwritable(path, error) from error
    beside = path.with_name(f".{path.name}.{secrets.token_hex(3)}{PARTIAL}")
    try:
        _write(beside, content, mode)
        beside.replace(path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    return True


def _clear(path: Path) -> None:
    """Take away what a writer of ours left that was killed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        leftover.unlink(missing_ok=True)


def _busy(path: Path) -> AckwardError:
    return Refused(
        f"{path} is written all the time by someone else",
        consequence="it was left as they wrote it",
        next_step="see who does, in the logs of the primary CNI plugin",
    )


def _beside(path: Path, content: bytes) -> Path:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(3)}{PARTIAL}")
    try:
        there = path.stat()
        _write(beside, content, there.st_mode & 0o7777)
        if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(beside, there.st_uid, there.st_gid)
    except FileNotFoundError:
        raise
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    return beside


def _write(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(handle, mode)
        os.fsync(handle)


def _put(path: Path, content: bytes) -> bytes | None:
    """Let this be what the file says; gives what it said until then, or none where that cannot be told."""
    beside = _beside(path, content)
    try:
        if not exchange(beside, path):
            beside.replace(path)
            return None
        with beside.open("rb") as displaced:
            _wait_for_writers(displaced.fileno())
            return displaced.read()
    except FileNotFoundError:
        raise  # the file went away meanwhile: there is nothing to replace
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


def _wait_for_writers(descriptor: int) -> None:
    # Who opens it while the lease is held lets the kernel send a signal: one that does nothing, not SIGIO, which kills.
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    deadline = time.monotonic() + _CLOSED_WITHIN
    while time.monotonic() < deadline:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                return  # no leases on this file system, or not on others' files
            time.sleep(0.002)
        else:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            return


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> AckwardError:
    """Why a file of the node cannot be written, and what to do."""
    if isinstance(error, PermissionError) and os.geteuid() != 0:
        return PrivilegeMissing.for_this_command(
            f"{path} may not be written", consequence="the node was not changed"
        )
    return Unavailable(
        f"{path} cannot be written ({error.strerror})",
        consequence="what was there before is untouched",
        next_step=f"make {path.parent} writable, with some free space (in a pod: its hostPath mount)",
    )
