"""The supervisor: opens the sockets, changes what must be changed in the kernel, forks the workers, ends with them.

Laws:

- Nothing is left behind by a start that fails.
- A worker ends when its supervisor does, however that ended (PR_SET_PDEATHSIG); what the supervisor changed in the
  kernel and what does not end with a process has a receipt.
- When a worker is lost, all end: half a gateway would serve some clients and not others.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import resource
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ackward.errors import AckwardError, Unavailable, UsageError
from ackward.gateway import sockets
from ackward.gateway.counters import Counters
from ackward.gateway.settings import FixedListener, Hooks, Settings
from ackward.gateway.steering import entrance, steered
from ackward.gateway.surroundings import queue_of, surrounded
from ackward.gateway.targets import MOST_WORKERS
from ackward.gateway.worker import Identity, Sockets, Worker
from ackward.kernel.namespaces import current
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import identify

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
#: Seconds that a worker may take to begin, or to answer.
_PATIENCE = 20.0
_LONGEST_ANSWER = 1 << 20


@dataclass
class _Process:
    number: int
    pid: int
    pidfd: int
    control: socket.socket


class Gateway:
    """A running gateway: entered it serves, left it has ended and nothing of it is there any more."""

    def __init__(self, settings: Settings, hooks: Hooks, store: Receipts | None = None) -> None:
        if not 1 <= settings.workers <= MOST_WORKERS:
            raise UsageError(
                f"{settings.workers} workers cannot be had",
                consequence="the gateway was not started",
                next_step=f"name 1 to {MOST_WORKERS}; more than processors are of no use",
            )
        self.settings, self._hooks = settings, hooks
        self._store = store or Receipts()
        self.counters = Counters(settings.workers)
        self._processes: list[_Process] = []
        self._lost: list[int] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            _raise_descriptors()
            opened = stack.enter_context(_Opened(self.settings))
            stack.callback(self._end_all)
            netns = identify(current()).cookie or 0
            stack.enter_context(steered(self.settings, opened.workers, netns))
            stack.enter_context(surrounded(self.settings, self._store))
            for number in range(self.settings.workers):
                self._fork(number, opened, netns)
            opened.close()  # a worker's listener must end with the worker
            for process in self._processes:
                self._await_begin(process)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _fork(self, number: int, opened: _Opened, netns: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            theirs.close()
            ours.settimeout(_PATIENCE)
            self._processes.append(_Process(number, pid, os.pidfd_open(pid), ours))
            return
        code = 1
        try:
            ours.close()
            for process in self._processes:
                process.control.close()
                os.close(process.pidfd)
            _be_a_worker(supervisor)
            opened.keep_only(number)
            code = self._work(number, opened.workers[number], netns, theirs)
        except BaseException:  # noqa: BLE001 - nothing may return into the supervisor's code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _work(self, number: int, own: Sockets, netns: int, control: socket.socket) -> int:
        """The life of a worker: gives its exit code."""
        queue = queue_of(self.settings, os.getppid())
        identity = Identity(number, netns, queue if number == 0 else None)
        try:
            worker = Worker(self.settings, self._hooks, own, self.counters.row(number), identity, control)
        except AckwardError as error:
            control.send(pickle.dumps(error))
            return 1
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look at it again
        control.send(pickle.dumps(None))
        control.settimeout(0)
        worker.run()
        return 0

    def _await_begin(self, process: _Process) -> None:
        try:
            began = process.control.recv(_LONGEST_ANSWER)
        except TimeoutError as error:
            raise _not_begun(process, "does not answer") from error
        if not began:
            raise _not_begun(process, "ended")
        failure = pickle.loads(began)  # noqa: S301 - our own child's words, over a socket that nobody else has
        if failure is not None:
            raise failure

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask every worker that lives; gives their answers."""
        answers = []
        for process in self._processes:
            try:
                process.control.send(pickle.dumps(request))
                if answer := process.control.recv(_LONGEST_ANSWER):
                    answers.append(pickle.loads(answer))  # noqa: S301 - our own child's words
            except (BrokenPipeError, ConnectionResetError, TimeoutError):
                continue  # it has ended, or is about to: `wait` tells
        return answers

    def tell(self, request: dict[str, Any]) -> None:
        """Ask, and leave the answers."""
        self.ask(request)

    @property
    def pids(self) -> list[int]:
        """The workers that have not ended."""
        return [process.pid for process in self._processes]

    @property
    def descriptors(self) -> list[int]:
        """One for each living worker: readable when it has ended (pidfd)."""
        return [process.pidfd for process in self._processes]

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all workers have ended, at most so long; whether they have.

        Raises :class:`Unavailable` when one was lost; the others are ended then.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while self._processes:
            left = None if until is None else max(0.0, until - time.monotonic())
            ready, _, _ = select.select(self.descriptors, [], [], left)
            if not ready:
                return False
            for process in [one for one in self._processes if one.pidfd in ready]:
                self._bury(process)
            if self._lost:
                self._end_all()
                raise Unavailable(
                    f"worker {self._lost[0]} of the gateway was lost",
                    consequence="the gateway has ended; its connections were reset",
                    next_step="start it again; its last words are on stderr",
                )
        return True

    def _bury(self, process: _Process) -> None:
        _, status = os.waitpid(process.pid, 0)
        process.control.close()
        os.close(process.pidfd)
        self._processes.remove(process)
        self.counters.clear_gauges(process.number)
        if os.waitstatus_to_exitcode(status) != 0:
            self._lost.append(process.number)

    def _end_all(self) -> None:
        """Stop all workers; those that do not stop are killed."""
        self.ask({"do": "stop"})
        deadline = time.monotonic() + _PATIENCE
        while self._processes:
            ready, _, _ = select.select(self.descriptors, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                for process in self._processes:
                    signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
                deadline = time.monotonic() + _PATIENCE
            for process in [one for one in self._processes if one.pidfd in ready]:
                self._bury(process)


def _not_begun(process: _Process, what: str) -> Unavailable:
    return Unavailable(
        f"worker {process.number} {what}",
        consequence="the gateway was not started",
        next_step="look at its last words on stderr",
    )


def _be_a_worker(supervisor: int) -> None:
    """End with the supervisor; let it decide what signals mean (a terminal sends them to all)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        os._exit(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _raise_descriptors() -> None:
    """As many descriptors as the host allows: a connection takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Opened:
    """The listening sockets of all workers."""

    def __init__(self, settings: Settings) -> None:
        self.workers: list[Sockets] = []
        with ExitStack() as stack:
            stack.callback(self.close)
            self._open(settings)
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, settings: Settings) -> None:
        limits, buffers = settings.limits, settings.buffers
        fixed = [one.bind for one in settings.listeners if isinstance(one, FixedListener)]
        for address in [*fixed, *(exit_.bind for exit_ in settings.exits)]:
            # Those of the workers share their port, and would share it with a second gateway, too.
            sockets.listening(address, limits, buffer=buffers.near, alone=True).close()
        for _ in range(settings.workers):
            own = Sockets([], [])
            self.workers.append(own)
            for listener in settings.listeners:
                own.entrances.append(entrance(listener, settings))
            for exit_ in settings.exits:
                own.exits.append(
                    sockets.listening(
                        exit_.bind,
                        limits,
                        buffer=buffers.leg,
                        congestion=exit_.congestion,
                        mptcp=exit_.mptcp,
                        fast_open=True,
                    )
                )

    def keep_only(self, number: int) -> None:
        """In a worker: close what belongs to the others."""
        for other, own in enumerate(self.workers):
            if other != number:
                own.close()

    def close(self) -> None:
        """Close all of them."""
        for own in self.workers:
            own.close()
