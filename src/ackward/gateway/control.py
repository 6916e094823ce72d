"""The gateway's control socket: what ``ackward gateway status`` and ``drain`` talk to. Root only.

A request is one line of JSON, ``{"do": "status"}``, and so is the answer.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ackward.errors import AckwardError, PrivilegeMissing, Unavailable, UnknownName, UsageError
from ackward.gateway.shown import Beside
from ackward.kernel import directories
from ackward.model.units import duration, plural

DIRECTORY = Path("/run/ackward/gateway")
_LONGEST = 4096
#: A request is sent in one piece by a program of ours; whoever takes longer is none.
_PATIENCE = 1.0
#: Answers wait for every worker's.
_ANSWER_PATIENCE = 10.0
_LONGEST_ANSWER = 16 << 20

Answer = Callable[[str], dict[str, Any]]


def path_of(name: str) -> Path:
    """The control socket of the gateway of that name."""
    return DIRECTORY / f"{name}.sock"


def running() -> list[str]:
    """The names of the gateways that run here. Raises :class:`PrivilegeMissing`."""
    return [path.stem for path in _sockets() if _lives(path)]


def clear() -> None:
    """Remove what killed gateways left. Raises :class:`PrivilegeMissing`."""
    with suppress(FileNotFoundError), _alone():
        _clear()


def _clear() -> None:
    for path in _sockets():
        if not _lives(path):
            path.unlink(missing_ok=True)


@contextmanager
def _alone() -> Iterator[None]:
    """While no other gateway starts or clears: a socket that is bound and does not listen yet looks like a dead one."""
    handle = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sockets() -> list[Path]:
    try:
        return [path for path in sorted(DIRECTORY.iterdir()) if path.suffix == ".sock"]
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise PrivilegeMissing.for_this_command(
            f"{DIRECTORY} may not be read", consequence="whether a gateway runs here is not known"
        ) from error


def _lives(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # not ours to ask
    return True


class Control:
    """The listening end. ``answer`` carries a request out."""

    def __init__(self, name: str, answer: Answer) -> None:
        self._path, self._answer = path_of(name), answer
        self.socket, self._identity = directories.inside(DIRECTORY, lambda: self._listen(name))
        self.socket.settimeout(0)

    def _listen(self, name: str) -> tuple[socket.socket, int]:
        """The socket, and the inode of its file."""
        found = DIRECTORY.stat()
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise Unavailable(
                f"others can write to {DIRECTORY}",
                consequence="the control socket would not be safe there",
                next_step=f"`chown root {DIRECTORY} && chmod 700 {DIRECTORY}`",
            )
        with _alone():
            self._require_free(name)
            _clear()  # what killed gateways left goes with the next start of any
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            mask = os.umask(0o177)
            try:
                made.bind(str(self._path))
                made.listen(128)
                return made, self._path.stat().st_ino
            except BaseException:
                made.close()
                raise
            finally:
                os.umask(mask)

    def _require_free(self, name: str) -> None:
        """Refuse to run beside a gateway of the same name that lives."""
        try:
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise UsageError(
                    f"{self._path} is no socket",
                    consequence="nothing was started",
                    next_step="remove it, or give the gateway another `name`",
                )
        except FileNotFoundError:
            return
        if not _lives(self._path):
            return
        drains = _draining(name)
        if drains is not None and drains.draining is not None:
            ends = f" ({duration(round(drains.draining.left * 1e9))} at the latest)"
            raise UsageError(
                f"a gateway named {name!r} drains, with {plural(drains.connections, 'connection')} open",
                consequence="nothing was started",
                next_step=f"wait until it has ended{ends}, or give this one another `name`: it can run beside",
            )
        raise UsageError(
            f"a gateway named {name!r} runs already",
            consequence="nothing was started",
            next_step=f"give this one another `name`, or stop that one: `ackward gateway drain {name}`",
        )

    def serve(self) -> None:
        """Answer who waits; one that does not behave is closed."""
        while True:
            try:
                client, _ = self.socket.accept()
            except BlockingIOError:
                return
            with client:
                client.settimeout(_PATIENCE)
                with suppress(OSError):
                    self._serve_one(client)

    def _serve_one(self, client: socket.socket) -> None:
        _, uid, _ = struct.unpack(
            "3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        )
        if uid not in (0, os.geteuid()):
            return
        line = client.makefile("rb").readline(_LONGEST)
        try:
            wanted = str(json.loads(line)["do"])
        except (ValueError, KeyError, TypeError):
            answer: dict[str, Any] = {"error": "no request"}
        else:
            answer = self._answer(wanted)
        client.sendall(json.dumps(answer).encode() + b"\n")

    def close(self) -> None:
        """Take the socket away, unless somebody else's is there by now."""
        self.socket.close()
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._identity:
                self._path.unlink()
        directories.leave(DIRECTORY, DIRECTORY.parent)


def _draining(name: str) -> Beside | None:
    """What a gateway of this name says of its drain; None: it says nothing."""
    try:
        return Beside.model_validate(ask(name, "drains", patience=_PATIENCE))
    except (AckwardError, ValueError):
        return None


def ask(name: str | None, what: str, *, patience: float = _ANSWER_PATIENCE) -> dict[str, Any]:
    """Ask a running gateway; ``name`` None: the only one there is. Raises an :class:`~ackward.errors.AckwardError`."""
    name = name or _only()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience)
        try:
            connection.connect(str(path_of(name)))
            connection.sendall(json.dumps({"do": what}).encode() + b"\n")
            line = connection.makefile("rb").readline(_LONGEST_ANSWER)
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError) as error:
            known = ", ".join(running()) or "none"
            raise UnknownName(
                f"no gateway named {name!r} runs here (seen: {known})",
                consequence="nothing is known of it",
                next_step="`ackward gateway run --config gateway.toml` starts one",
            ) from error
        except PermissionError as error:
            raise PrivilegeMissing.for_this_command(
                f"{path_of(name)} may not be opened", consequence="the gateway was not asked"
            ) from error
        except (TimeoutError, BlockingIOError) as error:  # the latter: too many ask already
            raise Unavailable(
                f"the gateway {name!r} does not answer",
                consequence="nothing is known of it",
                next_step="look at its log; its workers may be overloaded",
            ) from error
    if not line:
        raise PrivilegeMissing.for_this_command(
            f"the gateway {name!r} answers only its own user and root", consequence="it was not asked"
        )
    answer: dict[str, Any] = json.loads(line)
    return answer


def _only() -> str:
    names = running()
    if len(names) == 1:
        return names[0]
    if not names:
        raise UnknownName(
            "no gateway runs here",
            consequence="none was asked",
            next_step="`ackward gateway run --config gateway.toml` starts one",
        )
    raise UsageError(
        f"several gateways run here: {', '.join(names)}",
        consequence="none was asked",
        next_step="name one of them",
    )
