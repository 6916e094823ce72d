"""How a bypass is proven: by what programs wait for, as the bytes of joined connections never become segments."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ackward.capture.calls import FAILED, CallCapture, Calls
from ackward.diagnosis.diagnose import percentiles
from ackward.errors import Refused, VerificationFailed
from ackward.kernel.probes import cgroup_directory
from ackward.kernel.sock_diag import TcpState, dump
from ackward.loop.calls_reach import by_service, reached
from ackward.loop.phases import Measured, counted_windows
from ackward.model.causes import Cause
from ackward.model.load import Counters as Readings
from ackward.model.plan import Plan, Receipt
from ackward.model.report import Capture, CauseTotal, Report
from ackward.model.scopes import BypassScope
from ackward.model.verdict import Result, Verdict
from ackward.remedies.bypass.pinned import PinnedEngine
from ackward.remedies.bypass.rules import Counters
from ackward.remedies.bypass.words import kept_out
from ackward.remedies.transaction import find
from ackward.verify.compare import compare
from ackward.verify.guards import Windows, Work, guards_of_work, judged

#: A bypass saves microseconds of each exchange, and pays by their number; less than one is the clock's own.
LEAST_GAIN_NS = 1_000
#: Seconds between two looks: the rings hold 260,000 calls and 65,000 new sockets.
_POLL = 0.05

Say = Callable[[str], None]


@dataclass(frozen=True)
class CallMeter:
    """Measures the exchanges of a scope's connections at the client's end, before and after alike."""

    plan: Plan
    scope: BypassScope
    seconds: float
    stop: threading.Event

    def measured(self, when: str) -> Measured:
        """The exchanges as the programs saw them."""
        with counted_windows(self.plan, self.seconds) as readings:
            seen, seconds = self._seen()
        mine = reached(seen, self.scope, self.plan.namespace.inode)
        calls, elapsed = seen.calls, seen.calls["elapsed_ns"]
        asked = (elapsed > 0) & (elapsed < FAILED)
        own = asked & np.isin(calls["socket"], seen.clients[mine])
        either = np.isin(calls["socket"], np.concatenate([seen.clients[mine], seen.servers[mine]]))
        received = int(calls["bytes"][either].sum())
        if not own.any():
            raise VerificationFailed(
                f"no request was answered in {self.seconds:g} s {when}"
                + (f", though {received} bytes were received" if received else ""),
                consequence="there is nothing to compare; nothing is left changed",
                next_step="prove a service that answers: of connections that only stream nothing can be timed"
                if received
                else "let the service work meanwhile, with both ends on this host, or name a longer time",
            )
        return Measured(
            _report(seen, elapsed[own].astype(np.int64), int(mine.sum()), seconds),
            elapsed[own].astype(np.int64),
            self._others(seen, mine, asked),
            Windows.of(readings),
            _work(readings, calls["time_ns"], own, either & (elapsed == FAILED), calls["bytes"] * either),
        )

    def _seen(self) -> tuple[Calls, float]:
        cgroup = self.scope.cgroup
        with CallCapture(0 if cgroup is None else cgroup_directory(cgroup).stat().st_ino) as capture:
            began = time.monotonic()
            while (gone := time.monotonic() - began) < self.seconds and not capture.full:
                if self.stop.wait(min(_POLL, self.seconds - gone)):
                    break
                capture.poll()
            return capture.finish(), time.monotonic() - began

    def _others(
        self, seen: Calls, mine: NDArray[np.bool_], asked: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.int64]]:
        """What other clients waited for: those of this host, and the namespace's own of other hosts."""
        namespace = find(self.plan.namespace)
        listening = [socket.local[1] for socket in dump(namespace, [TcpState.LISTEN])] if namespace else []
        client = (seen.ends["netns"] == self.plan.namespace.inode) & ~np.isin(
            seen.ends["local_port"], listening
        )
        client[seen.servers] = False
        client[seen.clients] = ~mine
        others = asked & client[seen.calls["socket"]]
        return by_service(
            seen, seen.calls["socket"][others].astype(np.int64), seen.calls["elapsed_ns"][others]
        )

    def settle(self, receipt: Receipt, say: Say) -> None:
        """Wait until a connection has joined: those that were open stay on TCP, and services are learned first."""
        say(f"waiting until a new connection joins, at most {self.seconds:g} s")
        deadline = time.monotonic() + self.seconds
        while not (counters := _counters(receipt)).joined:
            if self.stop.wait(_POLL) or time.monotonic() > deadline:
                missing, next_step = _why_none(counters, self.seconds)
                raise VerificationFailed(
                    missing, consequence="it was undone: nothing is left changed", next_step=next_step
                )

    def verdict(self, before: Measured, after: Measured, receipt: Receipt, /) -> Verdict:
        """Medians and guards, and how much of it joined."""
        assert before.work is not None
        assert after.work is not None
        found = guards_of_work(
            before.windows, after.windows, (before.work, after.work), before.others, after.others
        )
        verdict = judged(compare(before.elapsed, after.elapsed, least_ns=LEAST_GAIN_NS), found)
        counters = _counters(receipt)
        words = (
            f"{verdict.words} {counters.joined // 2} connections joined; of their messages {counters.redirected} "
            f"went past TCP, {counters.passed} did not."
        )
        if verdict.result is not Result.IMPROVED and (reasons := kept_out(counters)):
            words += f" Kept out: {reasons}."
        return verdict.model_copy(update={"words": words})


def _counters(receipt: Receipt) -> Counters:
    try:
        with PinnedEngine(receipt.id, receipt.namespace.cookie or 0).engine() as engine:
            return engine.counters()
    except FileNotFoundError as error:
        raise Refused(
            f"{receipt.id} was taken back while it was measured",
            consequence="there is no after to compare with",
            next_step="prove it again, and let nobody undo it meanwhile",
        ) from error


def _why_none(counters: Counters, seconds: float) -> tuple[str, str]:
    """Why nothing joined, and what would help."""
    # These two the engine counts on the whole host.
    in_scope = counters._replace(out_of_scope=0, forbidden=0)
    reasons = kept_out(in_scope)
    if not reasons:
        return f"no new connection in scope was made within {seconds:g} s", (
            "restart the client, so that it connects anew, or prove longer"
        )
    if counters.streams:
        next_step = (
            "leave this service on TCP: it streams, and TCP gathers so many of its writes that it is faster"
        )
    elif counters.blocks:
        next_step = "if its programs mind none of these, add `--accept waitall,wakeup,shut-read`"
    elif any(in_scope._replace(sampled=0)[: Counters._fields.index("redirected")]):
        next_step = "see docs/bypass.md for what each of these means"
    else:
        next_step = "prove longer: a service is learned from its first connections, and the next ones join"
    return f"no connection joined within {seconds:g} s; kept out: {reasons}", next_step


def _report(seen: Calls, elapsed: NDArray[np.int64], connections: int, seconds: float) -> Report:
    """The exchanges as a report: their causes are unknown, as nothing was asked of segments."""
    total = int(elapsed.sum())
    notes = ["measured at send() and recv() of the client's end: segments do not tell of joined connections"]
    if seen.ended_early:
        notes.append(f"ended early after {seconds:.1f} s: {len(seen.calls):,} calls is all that is kept")
    if seen.lost:
        notes.append(f"{seen.lost} calls found no room in the buffer and are in no sum")
    return Report(
        capture=Capture(source="calls", seconds=seconds, flows=connections, notes=notes),
        exchanges=len(elapsed),
        elapsed_ns=total,
        causes={Cause.UNKNOWN: CauseTotal(ns=total, exchanges=len(elapsed))},
        latency_ns=percentiles(elapsed),
    )


def _work(
    readings: list[Readings],
    times: NDArray[np.uint64],
    own: NDArray[np.bool_],
    failed: NDArray[np.bool_],
    received: NDArray[np.uint64],
) -> Work:
    """What was done between each reading of the counters and the next."""
    edges = np.array([reading.time_ns for reading in readings], np.float64)

    def of(weights: NDArray[np.generic]) -> NDArray[np.float64]:
        found, _ = np.histogram(times.astype(np.float64), bins=edges, weights=weights.astype(np.float64))
        return found.astype(np.float64)

    return Work(exchanges=of(own), bytes=of(received), failed=of(failed))
