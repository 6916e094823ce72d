"""How near `fix bypass --prove` comes to what a program gains, and what its measuring costs: paired and interleaved.

A client asks and a server answers over loopback in a namespace of its own, both on one processor. Four times a repetition, in
random order, over TCP and joined, each with the proof's capture (capture/calls.py) and without. Printed: the median round by
the client's own clock, and by the capture; then what the capture adds to a round, with the interval that holds the median of
the repetitions with 95 % confidence. Needs root.

    python -m benchmarks.bypass_proof [--pairs 15] [--seconds 0.2] [--size 64]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import numpy as np
from tests.kernel.bypass_load import Done, Load, compiled, serving

from ackward.capture.calls import FAILED, CallCapture, Calls
from ackward.kernel.namespaces import Namespace, temporary
from ackward.remedies.bypass import engine
from benchmarks.bypass import LOOPBACK, machine, on_processor, rules
from benchmarks.bypass_shown import interval

Cell = tuple[str, bool]  #: over TCP or joined; with the capture or without
CELLS: tuple[Cell, ...] = tuple(product(("TCP", "joined"), (False, True)))


def asked(load: Load, host: Namespace, size: int, seconds: float) -> Done:
    with on_processor(0):
        return load.client(host, "ask", LOOPBACK, size, seconds)


def captured(load: Load, host: Namespace, size: int, seconds: float) -> tuple[Done, Calls]:
    """The same while the capture runs, which is read meanwhile as the proof does."""
    done: list[Done] = []
    with CallCapture() as capture:
        asking = threading.Thread(target=lambda: done.append(asked(load, host, size, seconds)))
        asking.start()
        while asking.is_alive():
            asking.join(0.05)
            capture.poll()
        return done[0], capture.finish()


def seen_p50(seen: Calls, host: Namespace) -> float:
    """What the capture says that clients in the host waited for, ns."""
    mine = seen.clients[seen.ends["netns"][seen.clients] == host.inode]
    elapsed = seen.calls["elapsed_ns"][np.isin(seen.calls["socket"], mine)]
    return float(np.median(elapsed[(elapsed > 0) & (elapsed < FAILED)]))


def told(values: Sequence[float]) -> str:
    low, high = interval(values)
    return f"{statistics.median(values):.2f} ({low:.2f} to {high:.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--size", type=int, default=64, help="of a request and of its answer, bytes")
    given = parser.parse_args()
    own: dict[Cell, list[float]] = {cell: [] for cell in CELLS}
    by_capture: dict[str, list[float]] = {"TCP": [], "joined": []}
    with ExitStack() as stack:
        host = stack.enter_context(temporary("proof"))
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ackward-bench-", dir="/var/tmp"))
        program = compiled(Path(directory))
        with on_processor(0):
            load = stack.enter_context(serving(host, program, 2))
        for _ in range(given.pairs):
            for way, watched in random.sample(CELLS, len(CELLS)):
                with ExitStack() as joined:
                    if way == "joined":
                        joined.enter_context(engine.attached(rules(host)))
                    if watched:
                        done, seen = captured(load, host, given.size, given.seconds)
                        by_capture[way].append(seen_p50(seen, host) / 1e3)
                    else:
                        done = asked(load, host, given.size, given.seconds)
                own[way, watched].append(done.numbers[2] / 1e3)
    print(f"{machine()}; --pairs {given.pairs} --seconds {given.seconds:g} --size {given.size}\n")
    print("| median round, us | TCP | joined | TCP of joined |\n|---|---|---|---|")
    rows = {
        "client's clock": (own["TCP", False], own["joined", False]),
        "client's clock, while measured": (own["TCP", True], own["joined", True]),
        "the proof": (by_capture["TCP"], by_capture["joined"]),
    }
    for name, (tcp, joined_) in rows.items():
        ratios = [one / other for one, other in zip(tcp, joined_, strict=True)]
        print(f"| {name} | {told(tcp)} | {told(joined_)} | {told(ratios)} |")
    for way in ("TCP", "joined"):
        added = [one - other for one, other in zip(own[way, True], own[way, False], strict=True)]
        print(f"\nMeasuring adds to a round, {way}: {told(added)} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
