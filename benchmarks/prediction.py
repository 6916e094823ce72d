"""The model of ``ackward predict acks`` against this kernel, cell by cell of a grid.

``python -m benchmarks.prediction [--json] [--only TEXT] [--rounds N]`` (root; a few minutes on a quiet machine) runs
each cell's load between two hosts of the lab and compares the median round with the model's. A cell is within if they
are no more than one jiffy and 0.5 ms apart: what two processes and the lab's link (a program of its own) take is not in
the model. Cells of one link share their hosts, and a few run at the same time; one that is not within is measured a
second time, alone, and the second time counts. ``--only`` takes the groups whose name has TEXT in it.

Thresholds are the lab link's (``Line.thin``): the server's kernel gives an ACK a segment and the link holds them. Its
timer is exact where the model's is a kernel's: that rounds up to jiffies and fires up to one later, so 15 ms differ
by up to 5. docs/predict.md has the result and the reason of each difference.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, product
from multiprocessing.connection import Connection
from typing import Any

from ackward.kernel.namespaces import Namespace, call_inside
from ackward.kernel.settings import ticks_per_second
from ackward.lab.peer import Shape, listen, load, serve
from ackward.lab.topology import TwoHosts, set_metrics, set_sysctls, two_hosts
from ackward.lab.wan import Line, Wan
from ackward.model.prediction import AckSettings
from ackward.predict.acks import predict
from ackward.remedies.steering.record import NUMBERS

MS = 1_000_000
JIFFY_NS = round(1e9 / (ticks_per_second() or 250))
LAB_NS = MS // 2
FULL = 1448  # a full segment over the lab's veth
#: A round trip over the bare wire, as `lab run healthy` measures it; every other one is the link's own delay.
WIRE_NS = 50_000
TOGETHER = 6
FIRST_PORT = 7000
#: A cell that takes longer than this has hung.
SECONDS = 120

Change = dict[str, Any]

#: Writes of a message and of its answer.
LOADS: dict[str, Change] = {
    "300": {"writes": (300,)},
    "100+200": {"writes": (100, 200)},
    "3x100": {"writes": (100,) * 3},
    "full+100": {"writes": (FULL, 100)},
    "4xfull": {"writes": (FULL,) * 4},
    "29 kB": {"writes": (20 * FULL,)},
    "300, answer in two": {"writes": (300,), "answer": (100, 100)},
    "100+200, answer in two": {"writes": (100, 200), "answer": (100, 100)},
}
#: With ACKs held, also more than a first window and more than the highest threshold in one write.
HELD_LOADS = {name: LOADS[name] for name in ("100+200", "3x100", "full+100", "4xfull", "29 kB")} | {
    "58 kB+100": {"writes": (40 * FULL, 100)}
}
NAGLE: dict[str, Change] = {"Nagle": {"nagle": True}, "": {"nagle": False}}
SERVER_NAGLE: dict[str, Change] = {"server's Nagle": {"server_nagle": True}, "": {"server_nagle": False}}
#: Both ends' settings, one or two changed at a time.
ENDS: dict[str, Change] = {
    "defaults": {},
    "quickack": {"quickack": True},
    "pingpong_thresh 3": {"pingpong_threshold": 3},
    "delayed ACK 8 ms": {"delack_ns": 8 * MS},
    "no probes": {"tlp": False},
    "rto_min 5 ms": {"rto_min_ns": 5 * MS},
    "rto_min 5 ms, no probes": {"rto_min_ns": 5 * MS, "tlp": False},
    "answer after 15 ms": {"think_ns": 15 * MS},
    "rto_min 5 ms, answer after 30 ms": {"rto_min_ns": 5 * MS, "think_ns": 30 * MS},
}
ROUND_TRIPS: dict[str, Change] = {
    "wire": {"rtt_ns": WIRE_NS},
    **{f"{each} ms": {"rtt_ns": each * MS} for each in (2, 20, 100)},
}
HELD: dict[str, Change] = {
    f"threshold {threshold}, {delay} ms": {"threshold": threshold, "delack_ns": delay * MS}
    for threshold, delay in ((1, 40), (4, 40), (16, 40), (4, 15), (16, 15))
}
HELD_ENDS = {name: ENDS[name] for name in ("defaults", "no probes")}


@dataclass(frozen=True)
class Cell:
    """One load on one link. ``group`` is the link and both ends' settings, ``load`` the writes and Nagle."""

    group: str
    load: str
    settings: AckSettings


def cells(rounds: int) -> Iterator[Cell]:
    """The whole grid; cells of one link stand together, and within it those of one group."""
    for link, ends in product(ROUND_TRIPS, ENDS):
        for name, client, server in product(LOADS, NAGLE, SERVER_NAGLE):
            if server and "answer" not in LOADS[name]:
                continue  # Nagle never holds a single write that begins with nothing outstanding
            changes = (ROUND_TRIPS[link], ENDS[ends], LOADS[name], NAGLE[client], SERVER_NAGLE[server])
            yield _cell((link, ends), (name, client, server), changes, rounds)
    far = [link for link in ROUND_TRIPS if link != "wire"]
    for link, held, ends in product(far, HELD, HELD_ENDS):
        for name, client in product(HELD_LOADS, NAGLE):
            changes = (ROUND_TRIPS[link], HELD[held], HELD_ENDS[ends], HELD_LOADS[name], NAGLE[client])
            yield _cell((link, held, ends), (name, client), changes, rounds)


def _cell(group: Sequence[str], words: Sequence[str], changes: Sequence[Change], rounds: int) -> Cell:
    settings: Change = {"rounds": rounds, "tick_ns": JIFFY_NS}
    for change in changes:
        settings |= change
    return Cell(", ".join(group), ", ".join(filter(None, words)), AckSettings(**settings))


@dataclass(frozen=True)
class Row:
    """What came of a cell. ``again``: it was measured twice."""

    cell: Cell
    kernel_ns: tuple[int, ...]
    model_ns: tuple[int, ...]
    again: bool = False

    @property
    def off_ns(self) -> float:
        """How much longer the kernel's median round is than the model's."""
        return statistics.median(self.kernel_ns) - statistics.median(self.model_ns)

    @property
    def within(self) -> bool:
        """One jiffy, and the lab's own time."""
        return abs(self.off_ns) <= JIFFY_NS + LAB_NS


def wan(settings: AckSettings) -> Wan | None:
    """The link that a cell wants between its hosts."""
    if settings.rtt_ns == WIRE_NS:
        return None
    delay = settings.rtt_ns / 2 / MS
    if settings.threshold < 2:
        return Wan.of(delay)
    back = Line(delay, thin=settings.threshold, thin_hold=settings.delack_ns / MS, thin_size=FULL)
    return Wan(Line(delay), back)


def tune(hosts: TwoHosts, settings: AckSettings) -> None:
    """Give both hosts the cell's routes and sysctls."""
    acks_each = settings.quickack or settings.threshold > 0
    set_metrics(hosts.server, hosts, ("quickack", "1") if acks_each else ())
    rto_min = f"{settings.rto_min_ns // MS}ms"
    set_metrics(hosts.client, hosts, ("rto_min", rto_min) if rto_min != "200ms" else ())
    for host in (hosts.client, hosts.server):
        set_sysctls(
            host,
            {
                "net.ipv4.tcp_pingpong_thresh": str(settings.pingpong_threshold),
                "net.ipv4.tcp_early_retrans": "3" if settings.tlp else "0",
                # What one cell's connection learnt is not the next one's (net/ipv4/tcp_metrics.c).
                "net.ipv4.tcp_no_metrics_save": "1",
            },
        )


def shape_of(settings: AckSettings, port: int) -> Shape:
    """The cell's load in the lab's words."""
    return Shape(
        pings=len(settings.writes),
        sizes=settings.writes,
        pongs=len(settings.answer),
        answer=settings.answer[0],
        rounds=settings.rounds,
        latency=settings.think_ns / MS,
        nagle=settings.nagle,
        server_nagle=settings.server_nagle,
        congestion="cubic",
        port=port,
    )


# Forked, not spawned: a thousand interpreters would take longer than the loads. This process has no other thread.
_FORK = multiprocessing.get_context("fork")


def measure(hosts: TwoHosts, settings: Sequence[AckSettings]) -> list[tuple[int, ...]]:
    """Run loads at the same time, each on a port of its own; gives every round's nanoseconds."""
    with ExitStack() as stack:
        results = []
        for port, each in enumerate(settings, FIRST_PORT):
            shape = shape_of(each, port)
            listener = stack.enter_context(call_inside(hosts.server, _listener, shape, each))
            _start(stack, serve, listener, shape)
            receiver, sender = _FORK.Pipe(duplex=False)
            _start(stack, _ask, sender, hosts.client, hosts.server_address(4), shape)
            sender.close()
            results.append(stack.enter_context(receiver))
        return [_received(result, each) for result, each in zip(results, settings, strict=True)]


def _listener(shape: Shape, settings: AckSettings) -> socket.socket:
    listener = listen("::", shape)
    if settings.threshold == 0 and settings.delack_ns < 40 * MS:  # accepted sockets inherit it
        option = NUMBERS["TCP_DELACK_MAX"]
        listener.setsockopt(option.level, option.in_user_space, settings.delack_ns // 1000)
    return listener


def _start(stack: ExitStack, function: Any, *arguments: Any) -> None:
    process = _FORK.Process(target=function, args=arguments, daemon=True)
    process.start()
    stack.callback(process.join)
    stack.callback(process.kill)


def _ask(results: Connection, client: Namespace, address: str, shape: Shape) -> None:
    results.send(call_inside(client, lambda: tuple(load(address, shape))))


def _received(results: Connection, settings: AckSettings) -> tuple[int, ...]:
    if not results.poll(SECONDS):
        raise SystemExit(f"a load hung: {settings}")
    rounds: tuple[int, ...] = results.recv()
    return rounds


def run(grid: Sequence[Cell]) -> Iterator[Row]:
    """Measure and predict every cell."""
    by_link = sorted(grid, key=lambda cell: repr(wan(cell.settings)))  # stable: groups stay together
    for _, of_link in groupby(by_link, key=lambda cell: repr(wan(cell.settings))):
        linked = list(of_link)
        with two_hosts(wan(linked[0].settings)) as hosts:
            for group, of_group in groupby(linked, key=lambda cell: cell.group):
                print(group, file=sys.stderr)
                # Neighbours take about as long: nobody waits for the slowest.
                predicted = [
                    (cell, tuple(each.elapsed_ns for each in predict(cell.settings).rounds))
                    for cell in of_group
                ]
                predicted.sort(key=lambda each: sum(each[1]))
                tune(hosts, predicted[0][0].settings)
                for start in range(0, len(predicted), TOGETHER):
                    some = predicted[start : start + TOGETHER]
                    measured = measure(hosts, [cell.settings for cell, _ in some])
                    for (cell, model), kernel in zip(some, measured, strict=True):
                        row = Row(cell, kernel, model)
                        if not row.within:
                            row = Row(cell, measure(hosts, [cell.settings])[0], model, again=True)
                        yield row


def report(rows: Sequence[Row]) -> str:
    """How many are within, and all that are not."""
    good = sum(row.within for row in rows)
    twice = sum(row.again for row in rows)
    allowed = f"one jiffy ({JIFFY_NS / MS:.1f} ms) and {LAB_NS / MS:.1f} ms"
    lines = [f"{good} of {len(rows)} cells within {allowed}; {twice} measured twice"]
    for row in rows:
        if not row.within:
            lines += [
                f"{row.cell.group}: {row.cell.load}: {row.off_ns / MS:+.1f} ms",
                f"    kernel {_milliseconds(row.kernel_ns)}",
                f"    model  {_milliseconds(row.model_ns)}",
            ]
    return "\n".join(lines)


def _milliseconds(rounds: Sequence[int]) -> str:
    return " ".join(f"{each / MS:.1f}" for each in rounds)


def as_json(rows: Sequence[Row]) -> str:
    """Every cell."""
    return json.dumps(
        [
            {
                "group": row.cell.group,
                "load": row.cell.load,
                "within": row.within,
                "off_ns": row.off_ns,
                "measured_twice": row.again,
                "kernel_ns": row.kernel_ns,
                "model_ns": row.model_ns,
                "settings": row.cell.settings.model_dump(),
            }
            for row in rows
        ],
        indent=1,
    )


def main() -> int:
    """Print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print every cell as JSON")
    parser.add_argument("--only", default="", help="groups whose name has this in it")
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds of each cell; odd, for a median that is one"
    )
    given = parser.parse_args()
    rows = list(run([cell for cell in cells(given.rounds) if given.only in cell.group]))
    print(as_json(rows) if given.json else report(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
