"""Guards: what a remedy harms beside the traffic that it is for. Pure.

A phase is cut into windows, and each counter's growth in them is known. A guard compares how much of something there
was for each unit of work (ACKs a received segment, CPU a segment of data), never an amount a second: a remedy that lets
a program do a thousand times more work in a second costs more a second. Windows differ by themselves; so a guard speaks
only if the confidence interval of its difference lies beyond its limit as a whole (bootstrap over windows, so bursts
within a phase widen it), and what it guards grew by an amount that matters. What changes slowly on a host between two
phases no interval within them can show: that is what the limits leave room for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ackward.model.load import Counters, Load
from ackward.model.units import duration
from ackward.model.verdict import Guard, GuardState, Result, Verdict
from ackward.verify.compare import CONFIDENCE, RESAMPLES, compare

#: Fewer windows in which there was work say nothing about how windows differ...
LEAST_WINDOWS = 5
#: ...and fewer units of work nothing about shares of it.
LEAST_WORK = 50
#: Fewer exchanges of another service in a phase give no median.
LEAST_EXCHANGES = 20

#: A receiver that delays ACKs sends at least one for two segments (RFC 5681 section 4.2), one that does not sends one
#: for each: half an ACK a segment is the known price. More means that answers no longer carry other traffic's ACKs.
MOST_ACKS = 0.75
#: ACKs a second more that nobody notices: at 2 us each they take 0.2 % of a processor.
FEW_ACKS = 1_000
#: TCP's throughput goes with 1 / sqrt(loss) (Mathis et al. 1997): one segment in a hundred sent again halves it on
#: most paths.
MOST_RETRANSMITTED = 0.01
#: For the same work; what a host does besides differs by less between two phases, most of the time...
MOST_CPU = 1.5
#: ...and a tenth of a processor is left for when it does not.
FEW_CORES = 0.1
#: Others' load differs from phase to phase too; half as long again is beyond that...
MOST_LATENCY = 1.5
#: ...and faster exchanges than this are only known by their means (the watch's threshold).
LEAST_LATENCY_NS = 1_000_000
#: Where each exchange is timed by itself, this is what no user notices.
LEAST_TIMED_NS = 50_000
#: Calls that fail, one in so many exchanges more: what ends a connection otherwise than before makes each end fail.
MOST_FAILED = 0.001
#: A remedy for latency may move less in a second where it takes what streams had; not a third less.
MOST_LESS = 1.5

Floats = NDArray[np.float64]
#: Services by name -> the times of their exchanges in nanoseconds.
Latencies = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Windows:
    """The growth of each counter in each window of a phase."""

    seconds: Floats
    acks: Floats
    received: Floats
    data_sent: Floats
    retransmitted: Floats
    kernel_ns: Floats

    @classmethod
    def of(cls, readings: Sequence[Counters]) -> Windows:
        """Between each reading and the next."""

        def growth(values: Sequence[int]) -> Floats:
            return np.diff(np.array(values, np.float64))

        return cls(
            seconds=growth([reading.time_ns for reading in readings]) / 1e9,
            acks=growth([reading.acks for reading in readings]),
            received=growth([reading.received for reading in readings]),
            data_sent=growth([reading.data_sent for reading in readings]),
            retransmitted=growth([reading.retransmitted for reading in readings]),
            kernel_ns=growth([reading.kernel_ns for reading in readings]),
        )

    @property
    def load(self) -> Load:
        """The whole phase, a second."""
        seconds = max(float(self.seconds.sum()), 1e-9)
        return Load(
            acks=float(self.acks.sum()) / seconds,
            received=float(self.received.sum()) / seconds,
            data_sent=float(self.data_sent.sum()) / seconds,
            retransmitted=float(self.retransmitted.sum()) / seconds,
            kernel_cores=float(self.kernel_ns.sum()) / 1e9 / seconds,
        )


@dataclass(frozen=True)
class Work:
    """What programs did in each window of a phase, by their own calls: for what no segment tells of."""

    exchanges: Floats
    bytes: Floats
    failed: Floats


@dataclass(frozen=True)
class Shares:
    """How much of something there was for each unit of work: the phase's share, and those of its resamples."""

    whole: float
    resampled: Floats

    @classmethod
    def of(cls, part: Floats, work: Floats) -> Shares | None:
        """None if there was too little work to say."""
        busy = work > 0
        if np.count_nonzero(busy) < LEAST_WINDOWS or work.sum() < LEAST_WORK:
            return None
        generator = np.random.default_rng(seed=1)  # the same windows always get the same verdict
        drawn = generator.integers(len(work), size=(RESAMPLES, len(work)))
        resampled = part[drawn].sum(axis=1) / np.maximum(work[drawn].sum(axis=1), 1)
        return cls(float(part.sum() / work.sum()), resampled)


def guards(
    before: Windows, after: Windows, others_before: Latencies, others_after: Latencies
) -> tuple[Guard, ...]:
    """All guards, in the order that they are shown."""
    return (
        _acks(before, after),
        _retransmissions(before, after),
        _cpu(before, after, before.data_sent, after.data_sent, "segment with data"),
        _latency(others_before, others_after, LEAST_LATENCY_NS),
    )


def guards_of_work(
    before: Windows,
    after: Windows,
    work: tuple[Work, Work],
    others_before: Latencies,
    others_after: Latencies,
) -> tuple[Guard, ...]:
    """The guards of a remedy that makes segments vanish, so that nothing can be counted by them.

    ``work``: before and after; of the connections that the remedy is for.
    """
    first, second = work
    return (
        _failed(first, second),
        _throughput(before, after, first, second),
        _cpu(before, after, first.exchanges, second.exchanges, "request"),
        _latency(others_before, others_after, LEAST_TIMED_NS),
    )


def judged(verdict: Verdict, found: tuple[Guard, ...]) -> Verdict:
    """The verdict with its guards: harm makes it worse, and the words say which guard spoke and by how much."""
    harmed = [guard for guard in found if guard.state is GuardState.HARMED]
    if not harmed:
        return verdict.model_copy(update={"guards": found})
    words = " ".join([verdict.words, *(f"But it harms: {guard.words}." for guard in harmed)])
    return verdict.model_copy(update={"guards": found, "result": Result.WORSE, "words": words})


def _acks(before: Windows, after: Windows) -> Guard:
    first, second = Shares.of(before.acks, before.received), Shares.of(after.acks, after.received)
    more = after.load.acks - before.load.acks
    rates = f"ACKs without data: {before.load.acks:,.0f} a second before, {after.load.acks:,.0f} after"
    harmed = (
        first is not None
        and second is not None
        and _surely_above(second.resampled - first.resampled, MOST_ACKS)
        and more > FEW_ACKS
    )
    if first and second:
        rates += f", {first.whole:.2f} and {second.whole:.2f} for each segment received"
    limit = f"limit {MOST_ACKS:g} more for each" if harmed else ""
    return _guard("acks", "ACKs a segment received", first, second, rates, limit, harmed=harmed)


def _retransmissions(before: Windows, after: Windows) -> Guard:
    first = Shares.of(before.retransmitted, before.data_sent)
    second = Shares.of(after.retransmitted, after.data_sent)
    harmed = (
        first is not None
        and second is not None
        and _surely_above(second.resampled - first.resampled, MOST_RETRANSMITTED)
    )
    words = "segments sent again"
    if first and second:
        words += f": {first.whole:.2%} of those with data before, {second.whole:.2%} after"
    limit = f"limit {MOST_RETRANSMITTED:.0%} more" if harmed else ""
    return _guard("retransmissions", "of segments with data", first, second, words, limit, harmed=harmed)


def _cpu(before: Windows, after: Windows, work_before: Floats, work_after: Floats, unit: str) -> Guard:
    first, second = Shares.of(before.kernel_ns, work_before), Shares.of(after.kernel_ns, work_after)
    more = after.load.kernel_cores - before.load.kernel_cores
    harmed = (
        first is not None
        and second is not None
        and _surely_above(second.resampled / np.maximum(first.resampled, 1), MOST_CPU)
        and more > FEW_CORES
    )
    words = (
        f"processors busy in the kernel: {before.load.kernel_cores:.2f} before, "
        f"{after.load.kernel_cores:.2f} after"
    )
    if first and second:
        words += f", {first.whole / 1e3:,.1f} and {second.whole / 1e3:,.1f} us for each {unit}"
    limit = f"limit {MOST_CPU:g} times" if harmed else ""
    return _guard("cpu", f"ns a {unit}", first, second, words, limit, harmed=harmed)


def _failed(before: Work, after: Work) -> Guard:
    first, second = Shares.of(before.failed, before.exchanges), Shares.of(after.failed, after.exchanges)
    harmed = (
        first is not None
        and second is not None
        and _surely_above(second.resampled - first.resampled, MOST_FAILED)
    )
    words = "calls that failed (send and recv)"
    if first and second:
        words += f": {first.whole:.3%} of the exchanges before, {second.whole:.3%} after"
    limit = f"limit {MOST_FAILED:.1%} more" if harmed else ""
    return _guard("failures", "of exchanges", first, second, words, limit, harmed=harmed)


def _throughput(before: Windows, after: Windows, work_before: Work, work_after: Work) -> Guard:
    """The one guard by the second: connections that stream have no exchanges to count by."""
    first = Shares.of(work_before.bytes, before.seconds * 1e3)
    second = Shares.of(work_after.bytes, after.seconds * 1e3)
    harmed = (
        first is not None
        and second is not None
        and _surely_above(first.resampled / np.maximum(second.resampled, 1e-9), MOST_LESS)
    )
    words = "payload received"
    if first and second:
        words += f": {first.whole / 1e3:,.2f} MB a second before, {second.whole / 1e3:,.2f} after"
    limit = f"limit {MOST_LESS:g} times less" if harmed else ""
    return _guard("throughput", "bytes a millisecond", first, second, words, limit, harmed=harmed)


def _guard(
    name: str,
    unit: str,
    first: Shares | None,
    second: Shares | None,
    words: str,
    limit: str,
    *,
    harmed: bool,
) -> Guard:
    silent = first is None or second is None
    return Guard(
        name=name,
        unit=unit,
        before=first.whole if first else None,
        after=second.whole if second else None,
        state=GuardState.SILENT if silent else GuardState.HARMED if harmed else GuardState.FINE,
        words=f"{words} ({limit})" if limit else words,
    )


def _surely_above(resampled: Floats, limit: float) -> bool:
    """Whether the whole confidence interval lies beyond the limit."""
    return bool(np.quantile(resampled, (1 - CONFIDENCE) / 2) > limit)


def _latency(before: Latencies, after: Latencies, least_ns: int) -> Guard:
    """Each other service by itself: a median over all would move when their mixture does."""
    common = sorted(
        name
        for name in before.keys() & after.keys()
        if min(len(before[name]), len(after[name])) >= LEAST_EXCHANGES
    )
    verdicts = {name: compare(before[name], after[name], least_ns=least_ns) for name in common}
    if not verdicts:
        return Guard(
            name="latency",
            unit="ns, median",
            before=None,
            after=None,
            state=GuardState.SILENT,
            words=f"no other service had {LEAST_EXCHANGES} exchanges in both phases",
        )
    worst = max(verdicts, key=lambda name: verdicts[name].ratio_low)
    verdict = verdicts[worst]
    harmed = verdict.result is Result.WORSE and verdict.ratio_low > MOST_LATENCY
    figures = f"{worst} {duration(verdict.before.p50_ns)} before, {duration(verdict.after.p50_ns)} after"
    limit = f" ({verdict.ratio:,.1f} times; limit {MOST_LATENCY:g} times)" if harmed else ""
    count = "1 other service" if len(verdicts) == 1 else f"{len(verdicts)} other services"
    return Guard(
        name="latency",
        unit="ns, median",
        before=verdict.before.p50_ns,
        after=verdict.after.p50_ns,
        state=GuardState.HARMED if harmed else GuardState.FINE,
        words=f"{count}, worst: {figures}{limit}",
    )
