"""The supervisor: opens the sockets, changes what must be changed in the kernel, forks the workers, ends with them.

Laws:

- Nothing is left behind by a start that fails.
- A worker ends when its supervisor does, however that ended (PR_SET_PDEATHSIG); what the supervisor changed in the
  kernel and what does not end with a process has a receipt.
- A worker that is lost is replaced, and its clients alone are reset: half a gateway would serve some clients and not
  others. One that is lost again and again ends all, so that whoever supervises the gateway hears of it.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import math
import os
import pickle
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from ackward.errors import AckwardError, Unavailable, UsageError
from ackward.gateway import sockets
from ackward.gateway.counters import Count, Counters
from ackward.gateway.settings import Address, FixedListener, Hooks, Settings
from ackward.gateway.steering import Steer, entrance, steered
from ackward.gateway.surroundings import Widen, queue_of, surrounded
from ackward.gateway.targets import MOST_WORKERS
from ackward.gateway.worker import Identity, Sockets, Worker
from ackward.kernel.namespaces import current
from ackward.model.names import prose
from ackward.remedies.receipts import Receipts
from ackward.remedies.transaction import identify

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
#: Seconds that a worker may take to begin, or to answer.
_PATIENCE = 20.0
_LONGEST_ANSWER = 1 << 20
#: The number of what a worker says first of all; requests, and the answers to them, have higher ones.
_BEGUN = 0
#: More workers lost within so many seconds are no accident.
_MOST_LOST, _SOON = 5, 60.0


@dataclass
class _Process:
    number: int
    pid: int
    pidfd: int
    control: socket.socket


class Supervisor:
    """A running gateway: entered it serves, left it has ended and nothing of it is there any more."""

    def __init__(
        self,
        settings: Settings,
        hooks: Hooks,
        store: Receipts | None = None,
        *,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``told`` hears of workers that were lost and replaced."""
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
        self._told = told
        self._losses: deque[float] = deque(maxlen=_MOST_LOST)
        self._netns = 0
        self._steer: Steer | None = None
        self._widen: Widen | None = None
        self._requests = itertools.count(_BEGUN + 1)
        #: What workers were told since their start, which one that replaces another has to be told, too.
        self._since_start: dict[tuple[str, ...], dict[str, Any]] = {}
        self._draining = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            _raise_descriptors()
            _require_free_ports(self.settings)
            with ExitStack() as listeners:  # a worker's must end with the worker
                opened = []
                for _ in range(self.settings.workers):
                    opened.append(_open(self.settings))
                    listeners.callback(opened[-1].close)
                stack.callback(self._end_all)
                self._netns = identify(current()).cookie or 0
                self._steer = stack.enter_context(steered(self.settings, self._netns))
                for number, own in enumerate(opened):
                    self._steer(number, own)
                self._widen = stack.enter_context(surrounded(self.settings, self._store))
                for number, own in enumerate(opened):
                    self._fork(number, own, [other for other in opened if other is not own])
            for process in self._processes:
                self._await_begin(process)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _fork(self, number: int, own: Sockets, others: Sequence[Sockets] = ()) -> _Process:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            theirs.close()
            ours.settimeout(_PATIENCE)
            process = _Process(number, pid, os.pidfd_open(pid), ours)
            self._processes.append(process)
            return process
        code = 1
        try:
            ours.close()
            for process in self._processes:
                process.control.close()
                os.close(process.pidfd)
            _be_a_worker(supervisor)
            for other in others:
                other.close()
            code = self._work(number, own, theirs)
        except BaseException:  # noqa: BLE001 - nothing may return into the supervisor's code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _work(self, number: int, own: Sockets, control: socket.socket) -> int:
        """The life of a worker: gives its exit code."""
        queue = queue_of(self.settings, os.getppid())
        identity = Identity(number, self._netns, queue if number == 0 else None)
        try:
            worker = Worker(self.settings, self._hooks, own, self.counters.row(number), identity, control)
        except AckwardError as error:
            control.send(pickle.dumps((_BEGUN, error)))
            return 1
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look at it again
        control.send(pickle.dumps((_BEGUN, None)))
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
        _, failure = pickle.loads(began)  # noqa: S301 - our own child's words, over a socket that nobody else has
        if failure is not None:
            raise failure

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask every worker that lives; gives their answers."""
        answers = [self._ask(process, request) for process in self._processes]
        return [answer for answer in answers if answer is not None]

    def _ask(self, process: _Process, request: dict[str, Any]) -> dict[str, Any] | None:
        """None: it has ended, or is about to, and :meth:`wait` tells; or it was too late, and its answer is dropped."""
        number, answered, answer = next(self._requests), _BEGUN, None
        try:
            process.control.send(pickle.dumps((number, request)))
            while answered != number:
                said = process.control.recv(_LONGEST_ANSWER)
                if not said:
                    return None
                answered, answer = pickle.loads(said)  # noqa: S301 - our own child's words
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            return None
        return answer

    def tell(self, request: dict[str, Any]) -> None:
        """Ask, and leave the answers; workers that replace lost ones are told, too."""
        if request["do"] == "drain":
            self._draining = True
        else:
            kind = tuple(str(request.get(key)) for key in ("do", "listener", "peer"))
            self._since_start[kind] = request
        self.ask(request)

    def peer_moved(self, name: str, address: Address) -> None:
        """Let legs to this peer go to another address, over routes that are as wide as those to the old one were.

        Raises what the remedy raises: then the legs go there, but begin slowly.
        """
        assert self._widen is not None
        peers = tuple(
            replace(peer, address=address) if peer.name == name else peer for peer in self.settings.peers
        )
        try:
            if peers != self.settings.peers:
                self.settings = replace(self.settings, peers=peers)
                self._widen(self.settings)
        finally:
            self.tell({"do": "resolved", "peer": name, "address": address})

    def widen_again(self) -> None:
        """Put back initial windows of routes that others have taken, and tell of it. Looks now and then only."""
        assert self._widen is not None
        if words := self._widen.again():
            self._told(prose(words))

    @property
    def notices(self) -> list[str]:
        """What around this gateway is not as it should be now."""
        assert self._widen is not None
        words = self._widen.lacking()
        return [prose(words)] if words else []

    @property
    def pids(self) -> list[int]:
        """The workers that have not ended."""
        return [process.pid for process in self._processes]

    @property
    def descriptors(self) -> list[int]:
        """One for each living worker: readable when it has ended (pidfd)."""
        return [process.pidfd for process in self._processes]

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all workers have ended, at most so long; whether they have. Replaces those that are lost.

        Raises an error when too many were lost, or one cannot be replaced; all are ended then.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while self._processes:
            left = None if until is None else max(0.0, until - time.monotonic())
            ended = self._ended_within(left)
            if not ended:
                return False
            for process in ended:
                code = self._bury(process)
                if code:
                    self._lost(process, code)
        return True

    def _ended_within(self, seconds: float | None) -> list[_Process]:
        """Those that have ended, after at most so long. By poll(): select() takes no descriptor above 1023."""
        poll = select.poll()
        for process in self._processes:
            poll.register(process.pidfd, select.POLLIN)
        ready = {pidfd for pidfd, _ in poll.poll(None if seconds is None else math.ceil(seconds * 1000))}
        return [process for process in self._processes if process.pidfd in ready]

    def _bury(self, process: _Process) -> int:
        """Its exit code; negative: the signal that killed it."""
        _, status = os.waitpid(process.pid, 0)
        process.control.close()
        os.close(process.pidfd)
        self._processes.remove(process)
        self.counters.clear_gauges(process.number)
        return os.waitstatus_to_exitcode(status)

    def _lost(self, process: _Process, code: int) -> None:
        self.counters.row(process.number).add(Count.WORKERS_LOST)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        words = f"worker lost number={process.number} pid={process.pid} by={how}: its connections were reset"
        if self._draining:
            self._told(f"{words}; it is not replaced, since the gateway drains")
            return
        now = time.monotonic()
        often = len(self._losses) == _MOST_LOST and now - self._losses[0] < _SOON
        self._losses.append(now)
        if often:
            self._told(words)
            self._end_all()
            raise Unavailable(
                f"worker {process.number} of the gateway was lost, the last of {_MOST_LOST + 1} within a minute",
                consequence="the gateway has ended; its connections were reset",
                next_step="its last words are on stderr; start the gateway again",
            )
        try:
            pid = self._replace(process.number)
        except BaseException:
            self._told(f"{words}; it cannot be replaced")
            self._end_all()
            raise
        self._told(f"{words}; replaced by pid={pid}")

    def _replace(self, number: int) -> int:
        own = _open(self.settings)
        try:
            assert self._steer is not None
            self._steer(number, own)
            process = self._fork(number, own)
        finally:
            own.close()
        self._await_begin(process)
        for request in self._since_start.values():
            self._ask(process, request)
        return process.pid

    def _end_all(self) -> None:
        """Stop all workers; those that do not stop are killed."""
        self.ask({"do": "stop"})
        deadline = time.monotonic() + _PATIENCE
        while self._processes:
            ended = self._ended_within(max(0.0, deadline - time.monotonic()))
            if not ended:
                for process in self._processes:
                    signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
                deadline = time.monotonic() + _PATIENCE
            for process in ended:
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


def _require_free_ports(settings: Settings) -> None:
    """Those of the workers share their port, and would share it with a second gateway, too."""
    fixed = [one.bind for one in settings.listeners if isinstance(one, FixedListener)]
    for address in [*fixed, *(exit_.bind for exit_ in settings.exits)]:
        sockets.listening(address, settings.limits, buffer=settings.buffers.near, alone=True).close()


def _open(settings: Settings) -> Sockets:
    """The listening sockets of one worker."""
    own = Sockets([], [])
    try:
        for listener in settings.listeners:
            own.entrances.append(entrance(listener, settings))
        for exit_ in settings.exits:
            own.exits.append(
                sockets.listening(
                    exit_.bind,
                    settings.limits,
                    buffer=settings.buffers.leg,
                    congestion=exit_.congestion,
                    mptcp=exit_.mptcp,
                    mss=exit_.mss,
                    fast_open=True,
                )
            )
    except BaseException:
        own.close()
        raise
    return own
