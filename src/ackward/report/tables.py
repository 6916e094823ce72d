"""A diagnosis as four tables: segments, flows, exchanges, findings.

Times are integers in nanoseconds, and a column's name ends in its unit where it has one. ``flow`` and ``exchange`` are
the numbers by which the tables are joined. Of an exchange there is one column a cause (``standoff_ns``,
``delayed_ack_ns`` ...); by the law of the project they add up to its ``elapsed_ns``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from ackward.diagnosis.attribution import Attribution, Stretch
from ackward.diagnosis.diagnose import Diagnosis
from ackward.diagnosis.exchanges import Timeline
from ackward.diagnosis.flows import Flow
from ackward.diagnosis.partition import CAUSES
from ackward.diagnosis.segmented import Bools, Ints, starts
from ackward.model.causes import Cause, End, Grade
from ackward.model.report import Finding
from ackward.model.segments import WINDOW_UNTOLD, Flag, Kind, Vantage


@dataclass(frozen=True)
class Tables:
    """The four tables as lazy frames: nothing is read or made before ``collect`` or ``sink_parquet``."""

    segments: pl.LazyFrame
    flows: pl.LazyFrame
    exchanges: pl.LazyFrame
    findings: pl.LazyFrame


#: The tables by name, in their order.
NAMES = tuple(field.name for field in fields(Tables))


def column_of(cause: Cause) -> str:
    """The column of an exchange that holds this cause's nanoseconds."""
    return f"{cause.value.replace('-', '_')}_ns"


_CAUSE = pl.Enum([cause.value for cause in Cause])
_SEEN_FROM = pl.Enum(["client", "server", "both", "between"])
_VANTAGE = {Vantage.CLIENT: "client", Vantage.SERVER: "server", Vantage.WIRE: "wire"}
_KIND = {kind: kind.name.lower().replace("_", "-") for kind in Kind}
#: Bits of the TCP header as letters, in the order in which Wireshark's columns name them.
_FLAGS = {Flag.SYN: "S", Flag.FIN: "F", Flag.RST: "R", Flag.PSH: "P", Flag.ACK: "A"}

Columns = dict[str, pl.DataType | type[pl.DataType]]
SEGMENTS: Columns = {
    "flow": pl.Int32,
    "exchange": pl.Int64,
    "time_ns": pl.Int64,
    "vantage": pl.Enum(_VANTAGE.values()),
    "kind": pl.Enum(_KIND.values()),
    "to_server": pl.Boolean,
    "seq": pl.Int64,
    "ack": pl.Int64,
    "bytes": pl.UInt32,
    "window_bytes": pl.UInt32,
    "flags": pl.String,
    "merged": pl.UInt16,
    "new_bytes": pl.Boolean,
    "sack_left": pl.Int64,
    "sack_right": pl.Int64,
    "packet": pl.Int64,
    "cwnd_segments": pl.UInt16,
    "in_flight_segments": pl.UInt16,
    "unsent_bytes": pl.UInt32,
    "srtt_ns": pl.Int64,
}
FLOWS: Columns = {
    "flow": pl.Int32,
    "client_address": pl.String,
    "client_port": pl.UInt16,
    "server_address": pl.String,
    "server_port": pl.UInt16,
    "client_command": pl.String,
    "client_pid": pl.Int64,
    "server_command": pl.String,
    "server_pid": pl.Int64,
    "seen_from": _SEEN_FROM,
    "protocol": pl.Enum(["tcp", "mptcp"]),
    "min_rtt_ns": pl.Int64,
    "bytes_to_server": pl.Int64,
    "bytes_to_client": pl.Int64,
    "retransmissions": pl.Int64,
    "rtt_ns": pl.Int64,
    "ack_rtt_ns": pl.Int64,
    "exchanges": pl.Int64,
    "elapsed_ns": pl.Int64,
    "counted_exchanges": pl.Int64,
}
FINDINGS: Columns = {
    "finding": pl.Int32,
    "cause": _CAUSE,
    "grade": pl.Enum([grade.value for grade in Grade]),
    "client": pl.String,
    "server": pl.String,
    "holding_end": pl.Enum([end.value for end in End]),
    "delaying_end": pl.Enum([end.value for end in End]),
    "flows": pl.Int64,
    "exchanges": pl.Int64,
    "lost_ns": pl.Int64,
    "lost_p50_ns": pl.Int64,
    "lost_p99_ns": pl.Int64,
    "why": pl.String,
    "remedy": pl.String,
    "remedy_end": pl.Enum([end.value for end in End]),
    "remedy_saves_ns": pl.Int64,
    "remedy_command": pl.String,
    "remedy_advice": pl.String,
}


def tables(diagnosis: Diagnosis) -> Tables:
    """The four tables of a diagnosis. Segments are made a stretch at a time, so they never stand in memory whole."""
    seen = diagnosis.attribution
    return Tables(
        segments=_segments(seen),
        flows=_flows(seen).lazy(),
        exchanges=_exchanges(seen).lazy(),
        findings=_findings(diagnosis.report.findings).lazy(),
    )


def _segments(seen: Attribution) -> pl.LazyFrame:
    def batches(
        columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        left = len(seen.traffic) if limit is None else limit
        for stretch in seen.stretches():
            frame = _stretch(stretch).head(left)
            left -= len(frame)
            frame = frame if predicate is None else frame.filter(predicate)
            yield frame if columns is None else frame.select(columns)
            if left <= 0:
                return

    return register_io_source(batches, schema=SEGMENTS)


def _first_numbers(timeline: Timeline) -> Ints:
    """Per flow and direction the first sequence number that was seen: the SYN's, or the first acknowledged one."""
    segments, size = timeline.segments, 2 * len(timeline.flows)
    lane = segments["flow"].astype(np.int64) * 2 + segments["to_server"]
    base = np.zeros(size, np.int64)
    acks = np.flatnonzero(timeline.ack64 >= 0)[::-1]
    base[lane[acks] ^ 1] = timeline.ack64[acks]
    base[lane[::-1]] = timeline.seq64[
        ::-1
    ]  # of numbers that are given again the last one stays: the first row
    return base


def _stretch(stretch: Stretch) -> pl.DataFrame:
    timeline = stretch.timeline
    rows, base_of = timeline.segments.rows, _first_numbers(timeline)
    wired = np.array([not (flow.client_end or flow.server_end) for flow in timeline.flows], bool)
    lane = rows["flow"].astype(np.int64) * 2 + rows["to_server"]
    base, other = base_of[lane], base_of[lane ^ 1]
    has_ack, has_sack = timeline.ack64 >= 0, rows["sack_right"] != rows["sack_left"]
    ack = timeline.ack64 - other
    told = rows["has_state"]
    number = rows["packet"]
    # SACK blocks lie near the ACK, so 32-bit distances from it are theirs (RFC 2018 section 3).
    edges = {
        edge: _where(has_ack & has_sack, ack + (rows[edge] - rows["ack"]).astype(np.int32))
        for edge in ("sack_left", "sack_right")
    }
    captured = wired[rows["flow"]]  # a live segment has no number
    unsent = (rows["write_seq"] - rows["snd_nxt"]).astype(np.uint32)
    return pl.DataFrame(
        {
            "flow": rows["flow"] + np.int32(stretch.flow),
            "exchange": _where(timeline.exchange >= 0, timeline.exchange + stretch.exchange),
            "time_ns": rows["time_ns"],
            "vantage": _named(rows["vantage"], _VANTAGE),
            "kind": _named(rows["kind"], _KIND),
            "to_server": rows["to_server"],
            "seq": timeline.seq64 - base,
            "ack": _where(has_ack, ack),
            "bytes": rows["bytes"],
            "window_bytes": _where(rows["window"] != WINDOW_UNTOLD, rows["window"]),
            "flags": pl.Series(_LETTERS).gather(rows["tcp_flags"] & 0x1F),
            "merged": rows["segments"],
            "new_bytes": timeline.fresh,
            **edges,
            "packet": _where(captured, number),
            "cwnd_segments": _where(told, rows["cwnd"]),
            "in_flight_segments": _where(told, rows["in_flight"]),
            "unsent_bytes": _where(told, unsent),
            "srtt_ns": _where(told, rows["srtt_us"].astype(np.int64) * 1000),
        },
        schema=SEGMENTS,
    )


_LETTERS = ["".join(letter for flag, letter in _FLAGS.items() if bits & flag) for bits in range(32)]


def _where(known: Bools, values: Ints) -> pl.Series:
    """The values, null where they are not known."""
    series = pl.Series(np.ascontiguousarray(values))
    return series if known.all() else series.zip_with(pl.Series(known), pl.Series([None], dtype=series.dtype))


def _named(codes: Ints, names: dict[Vantage, str] | dict[Kind, str]) -> pl.Series:
    """Numbers as the words that they stand for."""
    place = np.zeros(256, np.uint8)
    place[[int(code) for code in names]] = np.arange(len(names))
    return pl.Series(list(names.values()), dtype=pl.Enum(names.values())).gather(place[codes])


def _flows(seen: Attribution) -> pl.DataFrame:
    size = len(seen.traffic.flows)
    exchanges = np.bincount(seen.exchanges.flow_of, minlength=size)
    elapsed = np.zeros(size, np.int64)
    np.add.at(elapsed, seen.exchanges.flow_of, seen.exchanges.elapsed)
    rows = [
        (number, *_who(flow), *measures, own, spent, _counted(flow))
        for number, (flow, measures, own, spent) in enumerate(
            zip(seen.traffic.flows, _measures(seen), exchanges.tolist(), elapsed.tolist(), strict=True)
        )
    ]
    return pl.DataFrame(rows, schema=FLOWS, orient="row")


def _measures(seen: Attribution) -> Iterator[tuple[int, int | None, int | None]]:
    found = seen.measures
    for again, *times in zip(
        *(column.tolist() for column in (found.retransmissions, found.rtt, found.ack_rtt)), strict=True
    ):
        rtt, ack_rtt = (time if time >= 0 else None for time in times)
        yield again, rtt, ack_rtt


def _who(flow: Flow) -> tuple[object, ...]:
    owners = [end.owner if end else None for end in (flow.client_end, flow.server_end)]
    return (
        str(flow.client.address),
        flow.client.port,
        str(flow.server.address),
        flow.server.port,
        *(fact for owner in owners for fact in ((owner.command, owner.pid) if owner else (None, None))),
        flow.seen_from,
        "mptcp" if flow.mptcp else "tcp",
        flow.min_rtt_ns or None,
        flow.bytes_to_server,
        flow.bytes_to_client,
    )


def _counted(flow: Flow) -> int:
    """Exchanges that were too fast to be recorded one by one: they are in no other column."""
    end = flow.client_end or flow.server_end
    return end.fast.count if end else 0


def _exchanges(seen: Attribution) -> pl.DataFrame:
    exchanges, parts = seen.exchanges, seen.parts
    size, ns = exchanges.count, parts.ns
    spent = np.zeros((size, len(CAUSES)), np.int64)
    np.add.at(spent, (parts.exchange, parts.cause), ns)
    observed = np.zeros(size, np.int64)
    np.add.at(observed, parts.exchange[parts.observed], ns[parts.observed])
    sent = _payload(seen)
    first = starts(exchanges.flow_of)
    begins = np.maximum.accumulate(np.where(first, np.arange(size), 0)) if size else np.arange(0)
    worst = spent.argmax(axis=1) if size else np.zeros(0, np.int64)
    return pl.DataFrame(
        {
            "exchange": np.arange(size),
            "flow": exchanges.flow_of.astype(np.int32),
            "number": np.arange(size) - begins,
            "start_ns": exchanges.start,
            "end_ns": exchanges.end,
            "elapsed_ns": exchanges.elapsed,
            "estimated": exchanges.estimated,
            "min_rtt_ns": _where(exchanges.min_rtt > 0, exchanges.min_rtt),
            "bytes_to_server": sent[1],
            "bytes_to_client": sent[0],
            "worst_cause": pl.Series([cause.value for cause in CAUSES], dtype=_CAUSE).gather(worst),
            "observed_ns": observed,
            **{column_of(cause): spent[:, place] for place, cause in enumerate(CAUSES)},
        }
    )


def _payload(seen: Attribution) -> Ints:
    """The bytes of each exchange that were new when its own vantage point saw them, to the client and to the server."""
    total = np.zeros((2, seen.exchanges.count), np.int64)
    before = 0
    for first, beyond in seen.traffic.stretches():
        timeline = seen.traffic.timeline(first, beyond)
        rows = np.flatnonzero(timeline.fresh & (timeline.exchange >= 0))
        rows = rows[timeline.segments["vantage"][rows] == timeline.primary[timeline.exchange[rows]]]
        place = timeline.segments["to_server"][rows].astype(np.int64), timeline.exchange[rows] + before
        np.add.at(total, place, timeline.segments["bytes"][rows])
        before += timeline.count
    return total


def _findings(findings: list[Finding]) -> pl.DataFrame:
    rows = []
    for number, finding in enumerate(findings):
        best = finding.remedies[0] if finding.remedies else None
        rows.append(
            (
                number, finding.cause, finding.grade, finding.client, finding.server, finding.holding_end,
                finding.delaying_end, finding.flows, finding.exchanges, finding.lost_ns.total,
                finding.lost_ns.p50, finding.lost_ns.p99, finding.why,
                *((best.name, best.end, best.saves_ns, best.command, best.advice) if best else (None,) * 5),
            )
        )  # fmt: skip
    return pl.DataFrame(rows, schema=FINDINGS, orient="row")
