"""How fast captures are explained, and in how much memory: `ackward analyze` against tshark and tcptrace.

Each repetition runs all programs back to back in random order, each in a process of its own, so that ratios compare
neighbours in time: median of the paired ratios, and the quartiles as their spread. Programs that would take minutes
only get the short captures. What they do differs: tshark dissects everything, tcptrace keeps statistics of connections,
`read_captures` (the first part of `analyze`) gives a table of all segments, `analyze` a diagnosis; start-up counts for
all. tshark is asked for what `analyze` knows of each packet too (the tests compare the two, field by field), and once
more for a few header fields alone, which spares it the printing, not the analysis.

    python benchmarks/reading.py [--pairs 5] [--only CAPTURE ...] [--large] [--huge GIGABYTES] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

READ = """
import sys
from ackward.capture.reading import read_captures
from ackward.capture.sources import find
found = read_captures(find(sys.argv[1:]))
print(len(found.segments), len(found.flows))
"""
ACKWARD = str(Path(sys.executable).with_name("ackward"))
OURS = "ackward analyze"
HEADERS = (
    "frame.time_epoch", "ip.src", "tcp.stream", "tcp.seq", "tcp.ack", "tcp.len", "tcp.window_size", "tcp.flags",
)  # fmt: skip
#: What tests/unit/test_capture_tshark.py takes from tshark, packet by packet: from this the same could be worked out.
DIAGNOSED = (
    "frame.number", "frame.time_epoch", "tcp.stream", "tcp.seq_raw", "tcp.ack_raw", "tcp.len", "tcp.window_size",
    "tcp.flags", "tcp.options.timestamp.tsval", "tcp.options.timestamp.tsecr", "tcp.options.sack_le",
    "tcp.options.sack_re", "tcp.analysis.initial_rtt", "tcp.analysis.acks_frame", "tcp.analysis.ack_rtt",
    "tcp.analysis.retransmission", "tcp.analysis.fast_retransmission", "tcp.analysis.spurious_retransmission",
    "tcp.analysis.out_of_order",
)  # fmt: skip


def fields(*names: str) -> list[str]:
    """tshark printing these fields of each packet of the file that follows."""
    return ["tshark", "-n", "-T", "fields", *(word for name in names for word in ("-e", name)), "-r"]


#: Name -> command line, and the longest capture it is given.
PROGRAMS: dict[str, tuple[list[str], int]] = {
    OURS: ([ACKWARD, "analyze"], 10**9),
    "ackward analyze --json": ([ACKWARD, "analyze", "--json"], 10**9),  # with its table of all flows
    "read_captures": ([sys.executable, "-c", READ], 10**9),
    "tcptrace": (["tcptrace", "-n"], 10**7),
    "tshark -q -z conv,tcp": (["tshark", "-n", "-q", "-z", "conv,tcp", "-r"], 10**6),
    "tshark -T fields": (fields(*DIAGNOSED), 10**7),
    "tshark -T fields, headers": (fields(*HEADERS), 10**6),
}


CAPTURES = {
    f"{kind}-{packets}": (kind, packets)
    for kind, packets in (("requests", 10**5), ("requests", 10**6), ("bulk", 10**6), ("requests", 10**7))
}
LARGE = "requests-10000000"


@dataclass(frozen=True)
class Run:
    """One run: seconds of the whole process, and its peak memory."""

    seconds: float
    peak_mb: float


def run(argv: list[str]) -> Run:
    begin = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        while process.stdout.read(1 << 20):
            pass
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"{argv[0]} failed with {process.returncode}")
    return Run(seconds, usage.ru_maxrss / 1024)


def make(directory: Path, kind: str, packets: int) -> Path:
    path = directory / f"{kind}-{packets}.pcap"
    print(f"writing {path}", file=sys.stderr)
    # In a process of its own: a child's peak memory begins with that of its parent.
    subprocess.run(
        [sys.executable, Path(__file__).with_name("traffic.py"), kind, str(packets), path], check=True
    )
    return path


def compare(path: Path, packets: int, pairs: int) -> dict[str, list[Run]]:
    generator = random.Random(1)
    programs = [name for name, (argv, most) in PROGRAMS.items() if packets <= most and shutil.which(argv[0])]
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for number in range(pairs):
        print(f"\r{path.name}: {number + 1} of {pairs} ", end="", file=sys.stderr, flush=True)
        for name in generator.sample(programs, len(programs)):
            runs[name].append(run([*PROGRAMS[name][0], str(path)]))
    print(file=sys.stderr)
    return runs


def show(path: Path, packets: int, runs: dict[str, list[Run]]) -> None:
    print(f"\n{path.name}: {packets} packets, {path.stat().st_size / 1e6:.0f} MB")
    print(f"  {'program':<28}{'packets/s':>14}{'peak MB':>10}   median of the pairs, quartiles")
    for name, measured in runs.items():
        rate = packets / statistics.median(one.seconds for one in measured)
        peak = max(one.peak_mb for one in measured)
        line = f"  {name:<28}{rate:>14,.0f}{peak:>10.0f}"
        if name != OURS:
            ratios = [other.seconds / ours.seconds for other, ours in zip(measured, runs[OURS], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
            line += f"   ackward is {middle:.2f} times as fast ({low:.2f}-{high:.2f})"
        print(line, flush=True)


def huge(directory: Path, gigabytes: float) -> None:
    """One long file of bulk transfer: memory must grow with the number of segments and with nothing else."""
    print(f"\nmemory: {'file GB':>9}{'segments':>12}{'peak MB':>10}{'bytes a segment':>18}{'seconds':>10}")
    for share in (0.1, 0.3, 1.0):
        packets = int(gigabytes * share * 1e9 / 1047)
        path = make(directory, "bulk", packets)
        one = run([*PROGRAMS[OURS][0], str(path)])
        print(
            f"        {path.stat().st_size / 1e9:>9.2f}{packets:>12,}{one.peak_mb:>10.0f}{one.peak_mb * 2**20 / packets:>18.0f}"
            f"{one.seconds:>10.1f}",
            flush=True,
        )
        path.unlink()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CAPTURES,
        default=[],
        help="these captures",
    )
    parser.add_argument("--large", action="store_true", help="10^7 packets too (3.5 GB of disk)")
    parser.add_argument("--huge", type=float, metavar="GIGABYTES", help="check memory on a file of this size")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory(prefix="ackward-reading-") as name:
        directory = Path(name)
        usual = [name for name in CAPTURES if given.large or name != LARGE]
        for capture in given.only or usual:
            kind, packets = CAPTURES[capture]
            path = make(directory, kind, packets)
            runs = compare(path, packets, given.pairs)
            show(path, packets, runs)
            results[path.stem] = {
                program: [asdict(one) for one in measured] for program, measured in runs.items()
            }
            path.unlink()
        if given.huge:
            huge(directory, given.huge)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
