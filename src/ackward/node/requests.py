"""The socket that the stub asks: one request a connection, each in a thread of its own.

Laws: only root may ask; a client has a deadline and a bounded request; whatever it does, the others are served. A
request that makes no sense, or a handler that fails, gets no answer: then the stub does as its policy says.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ackward.errors import PrivilegeMissing, Unavailable
from ackward.node.places import LOCK, NEW, make_run
from ackward.node.wire import HEADER, Answer, Malformed, Request, lengths, request

Handler = Callable[[Request], Answer]
Trouble = Callable[[str], None]

#: A stub waits as long (AGENT_MS in stub/agent.h): after that nobody reads the answer.
DEADLINE_S = 3.0
#: More wait in the socket's queue; a node starts far fewer pods at a time.
_AT_ONCE = 64
_QUEUE = 512
_LOOK_AT_STOP_S = 0.1
_UCRED = struct.Struct("=3i")  # struct ucred: pid, uid, gid


class Server:
    """Serves ``handler`` at ``path``. ``trouble`` is told, from any thread, what a client or the handler did wrong."""

    def __init__(self, path: Path, handler: Handler, trouble: Trouble) -> None:
        self.path, self._handler, self._trouble = path, handler, trouble
        self._lock: int | None = None
        self._socket: socket.socket | None = None
        self._slots = threading.Semaphore(_AT_ONCE)
        self._running: set[threading.Thread] = set()

    def open(self) -> None:
        """Take the place.

        Raises :class:`Unavailable` when another agent has it, or the directory cannot be written, and
        :class:`ackward.errors.Refused` when others may write there too.
        """
        directory = self.path.parent
        try:
            make_run(directory)
            self._lock = os.open(self.path.with_suffix(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._socket = self._bound()
        except BlockingIOError as error:
            self.close()
            raise Unavailable(
                f"another node agent serves {self.path}",
                consequence="this one was not started",
                next_step="`ackward node status` shows it; end it first",
            ) from error
        except OSError as error:
            self.close()
            if isinstance(error, PermissionError) and os.geteuid() != 0:
                raise PrivilegeMissing.for_this_command(
                    f"{directory} may not be written", consequence="the agent was not started"
                ) from error
            raise Unavailable(
                f"no socket can be made at {self.path} ({error.strerror})",
                consequence="the agent was not started",
                next_step=f"make {directory} a writable directory",
            ) from error

    def _bound(self) -> socket.socket:
        """Bound beside the place and moved there: what a killed agent left is replaced, and nobody meets a gap."""
        new = self.path.with_suffix(NEW)
        new.unlink(missing_ok=True)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.bind(str(new))
            new.chmod(0o600)
            made.listen(_QUEUE)
            new.replace(self.path)
        except BaseException:
            made.close()
            raise
        return made

    def run(self, stop: threading.Event) -> None:
        """Serve until ``stop`` is set; then finish what was begun."""
        assert self._socket is not None
        self._socket.settimeout(_LOOK_AT_STOP_S)
        while not stop.is_set():
            if not self._slots.acquire(timeout=_LOOK_AT_STOP_S):
                continue
            try:
                client, _ = self._socket.accept()
            except OSError as error:
                self._slots.release()
                if not isinstance(error, TimeoutError):
                    self._trouble(f"a client could not be accepted: {error}")
                    stop.wait(_LOOK_AT_STOP_S)  # out of descriptors: it would come back at once
                continue
            self._begin(client)
        for thread in list(self._running):
            thread.join()

    def _begin(self, client: socket.socket) -> None:
        thread = threading.Thread(target=self._serve, args=(client,), name="request", daemon=True)
        self._running.add(thread)
        try:
            thread.start()
        except (
            RuntimeError
        ) as error:  # no more threads (the cgroup's pids.max): this client fails open, the next may not
            self._running.discard(thread)
            self._slots.release()
            client.close()
            self._trouble(f"a client got no answer: {error}")

    def close(self) -> None:
        """Give the place up; the socket goes, so that a stub knows at once."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self.path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                self._answer(client)
        except (Malformed, TimeoutError, ConnectionError) as error:
            self._trouble(f"a client got no answer: {error or type(error).__name__}")
        except Exception as error:  # noqa: BLE001 - one request shall not end the agent; told, and the stub fails open
            self._trouble(f"a request failed: {type(error).__name__}: {error}")
        finally:
            self._slots.release()
            self._running.discard(threading.current_thread())

    def _answer(self, client: socket.socket) -> None:
        _, user, _ = _UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if user != 0:
            raise Malformed(f"user {user} asked, and only root may")
        until = time.monotonic() + DEADLINE_S
        environment, configuration = lengths(_receive(client, HEADER.size, until))
        asked = request(_receive(client, environment, until), _receive(client, configuration, until))
        answer = self._handler(asked).pack()
        client.settimeout(DEADLINE_S)
        with contextlib.suppress(BrokenPipeError):  # the stub gave up on us, and what it asked is done
            client.sendall(answer)


def _receive(client: socket.socket, length: int, until: float) -> bytes:
    data = bytearray()
    while len(data) < length:
        client.settimeout(max(0.001, until - time.monotonic()))
        got = client.recv(min(length - len(data), 1 << 16))
        if not got:
            raise Malformed(f"it ended after {len(data)} of {length} bytes")
        data += got
    return bytes(data)
