"""Drawings as the product makes them: a ladder, and time-sequence plots."""

from __future__ import annotations

from ackward.model.causes import End
from ackward.model.report import (
    Ladder,
    LadderStep,
    Stall,
)
from ackward.model.sequence import SequenceMark, SequencePlot


def standoff_ladder() -> Ladder:
    """One exchange as measured on veth: both writes within 20 us, the ACK timer 40 ms later."""
    return Ladder(
        elapsed_ns=43_982_000,
        steps=[
            LadderStep(
                at_ns=0,
                arrives_ns=9_000,
                sender=End.CLIENT,
                seq=1,
                ack=1,
                bytes=100,
                flags="PSH ACK",
                note="first write",
            ),
            LadderStep(
                at_ns=14_000,
                sender=End.CLIENT,
                kind="write-held",
                bytes=200,
                note="200 B wait: 100 B are unacknowledged (Nagle)",
            ),
            LadderStep(at_ns=21_000, sender=End.SERVER, kind="read", note="100 B"),
            LadderStep(
                at_ns=43_914_000,
                sender=End.SERVER,
                kind="ack-timer",
                note="nothing to send for 43.9 ms: bare ACK",
            ),
            LadderStep(
                at_ns=43_920_000, arrives_ns=43_929_000, sender=End.SERVER, seq=1, ack=101, flags="ACK"
            ),
            LadderStep(
                at_ns=43_934_000,
                arrives_ns=43_943_000,
                sender=End.CLIENT,
                seq=101,
                ack=1,
                bytes=200,
                flags="PSH ACK",
            ),
            LadderStep(at_ns=43_951_000, sender=End.SERVER, kind="read", note="200 B"),
            LadderStep(
                at_ns=43_964_000,
                arrives_ns=43_973_000,
                sender=End.SERVER,
                seq=1,
                ack=301,
                bytes=100,
                flags="PSH ACK",
                note="the answer",
            ),
            LadderStep(at_ns=43_982_000, sender=End.CLIENT, kind="read", note="100 B"),
        ],
        stalls=[Stall(start_ns=14_000, end_ns=43_934_000, label="200 B held for an ACK")],
    )


def plot_of(
    rows: list[dict[str, int]], *, exchange: tuple[int, int], stalls: list[tuple[int, int]], **more: object
) -> SequencePlot:
    """A plot from rows of ``at``, ``way`` (1: to the server), ``seq``, ``bytes``, ``ack`` and what else they have."""

    def column(name: str, usual: int | None = None) -> tuple[int | None, ...]:
        return tuple(row.get(name, usual) for row in rows)

    return SequencePlot.model_validate(
        {
            "seen_from": "client",
            "stalled_to_server": True,
            "elapsed_ns": max(exchange[1], rows[-1]["at"]),
            "exchange_ns": exchange,
            "stalls_ns": stalls,
            "segments_seen": len(rows),
            "at_ns": column("at"),
            "to_server": tuple(row["way"] == 1 for row in rows),
            "seq": column("seq", 0),
            "bytes": column("bytes", 0),
            "flags": column("flags", 16),
            "ack": column("ack"),
            "window": column("window"),
            "sack_left": column("left"),
            "sack_right": column("right"),
            "merged": column("merged", 1),
            "packet": (),
            "again": [number for number, row in enumerate(rows) if row.get("again")],
            "late": [number for number, row in enumerate(rows) if row.get("late")],
        }
        | more
    )


def standoff_sequence() -> SequencePlot:
    """Three exchanges of the standoff as its client saw them, the ladder's in the middle."""
    rows, stalls, marks = [], [], []
    for n in range(3):
        at, sent, got = n * 44_000_000, n * 300 + 1, n * 100 + 1
        rows += [
            {"at": at, "way": 1, "seq": sent, "bytes": 100, "ack": got, "flags": 24},
            {"at": at + 43_929_000, "way": 0, "seq": got, "ack": sent + 100, "window": 65_536},
            {"at": at + 43_934_000, "way": 1, "seq": sent + 100, "bytes": 200, "ack": got, "flags": 24},
            {
                "at": at + 43_973_000,
                "way": 0,
                "seq": got,
                "bytes": 100,
                "ack": sent + 300,
                "window": 65_536,
                "flags": 24,
            },
        ]
        stalls.append((at + 14_000, at + 43_934_000))
        marks.append(
            SequenceMark(
                at_ns=at + 14_000,
                end=End.CLIENT,
                kind="write-held",
                to_server=True,
                seq=sent + 100,
                bytes=200,
                note="200 B written, held (Nagle on, 1 in flight)",
            )
        )
    return plot_of(rows, exchange=(44_000_000, 87_982_000), stalls=stalls, marks=tuple(marks))


def lossy_sequence() -> SequencePlot:
    """A download over 40 ms as its server saw it: a lost segment, SACKs, its repeat, then a window that closes."""
    trip, rows = 40_000_000, []
    lost, size, window = 60, 1448, 120_000
    at = 0
    for n in range(100):
        at = n // 20 * trip + n % 20 * 110_000
        rows.append({"at": at, "way": 0, "seq": 1 + n * size, "bytes": size, "ack": 181, "merged": 1 + n % 2})
        acked = {"at": at + trip - 3_000, "way": 1, "seq": 181, "window": window - n * 900}
        if n < lost:
            rows.append(acked | {"ack": 1 + (n + 1) * size})
        elif n > lost:
            hole = 1 + lost * size
            rows.append(acked | {"ack": hole, "left": hole + size, "right": 1 + (n + 1) * size})
    again = lost // 20 * trip + trip + 400_000
    whole = 1 + 100 * size
    rows += [
        {"at": again, "way": 0, "seq": 1 + lost * size, "bytes": size, "ack": 181, "again": 1},
        {"at": at + 2 * trip, "way": 1, "seq": 181, "ack": whole, "window": 0},
        {"at": at + 4 * trip, "way": 1, "seq": 181, "ack": whole, "window": window},
        {"at": at + 4 * trip + 9_000, "way": 0, "seq": whole, "bytes": size, "ack": 181, "flags": 25},
    ]
    rows.sort(key=lambda row: row["at"])
    return plot_of(
        rows,
        exchange=(0, at + 4 * trip + 9_000),
        stalls=[(again - trip, again), (at + 2 * trip, at + 4 * trip)],
        stalled_to_server=False,
        seen_from="server",
        segments_seen=4_012,
        packet=tuple(range(17, 17 + len(rows))),
    )
